use super::*;
use crate::schema::{Schema, resource::ColumnSource};

static SCHEMA: std::sync::LazyLock<Schema> = std::sync::LazyLock::new(Schema::builtin);

fn cells(group: &str, version: &str, name: &str, object: Value) -> Vec<Value> {
    let resource = SCHEMA.resource(group, version, name).unwrap();
    let options = TableOptions {
        include: IncludeObject::Metadata,
        headers: true,
        version: "v1".into(),
        now: "2026-01-01T00:10:00Z".parse().unwrap(),
    };
    let table = table(resource, &[object], &options);
    let row = &table["rows"][0];
    assert_eq!(row["cells"].as_array().unwrap().len(), table["columnDefinitions"].as_array().unwrap().len());
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    row["cells"].as_array().unwrap().clone()
}

fn pod(spec: Value, status: Value) -> Vec<Value> {
    let metadata = json!({"name":"p","creationTimestamp":"2026-01-01T00:00:00Z"});
    let object = json!({"kind":"Pod","apiVersion":"v1","metadata":metadata,"spec":spec,"status":status});
    cells("", "v1", "pods", object)
}

#[test]
fn every_computed_column_exists() {
    for resource in SCHEMA.resources() {
        for column in &resource.columns {
            if let ColumnSource::Compute(name) = &column.source {
                assert!(compute(name).is_some(), "{} {name}", resource.name);
            }
        }
    }
}

#[test]
fn every_function_takes_an_empty_object() {
    for resource in SCHEMA.resources() {
        cells(&resource.group, &resource.version, &resource.name, json!({}));
    }
}

#[test]
fn pods_print_as_kubectl_shows_them() {
    let one = json!({"containers":[{"name":"a"}],"nodeName":"n"});
    let running = json!({"phase":"Running","podIP":"10.0.0.1","containerStatuses":[{"name":"a","ready":true,"restartCount":2,
        "state":{"running":{}},"lastState":{"terminated":{"finishedAt":"2026-01-01T00:09:00Z"}}}]});
    assert_eq!(
        pod(one.clone(), running),
        ["p", "1/1", "Running", "2 (60s ago)", "10m", "10.0.0.1", "n", "<none>", "<none>"].map(Value::from)
    );
    let crash = json!({"phase":"Running","containerStatuses":[{"name":"a","ready":false,"restartCount":0,
        "state":{"waiting":{"reason":"CrashLoopBackOff"}}}]});
    assert_eq!(pod(one.clone(), crash)[2], "CrashLoopBackOff");
    let exited = json!({"phase":"Failed","containerStatuses":[{"name":"a","state":{"terminated":{"exitCode":3}}}]});
    assert_eq!(pod(one, exited)[2], "ExitCode:3");
    let two =
        json!({"containers":[{"name":"a"}],"initContainers":[{"name":"i"},{"name":"s","restartPolicy":"Always"}]});
    let first = json!({"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"running":{}}}]});
    assert_eq!(pod(two.clone(), first)[1..3], ["0/2", "Init:0/2"].map(Value::from));
    let failed = json!({"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"terminated":{"exitCode":1,"reason":"Error"}}}]});
    assert_eq!(pod(two.clone(), failed)[2], "Init:Error");
    let sidecar = json!({"phase":"Running","initContainerStatuses":[{"name":"i","state":{"terminated":{"exitCode":0}}},
        {"name":"s","started":true,"ready":true,"state":{"running":{}}}],
        "containerStatuses":[{"name":"a","ready":true,"state":{"running":{}}}]});
    assert_eq!(pod(two, sidecar)[1..3], ["2/2", "Running"].map(Value::from));
}

#[test]
fn workloads_and_services() {
    let deployment = json!({"metadata":{"name":"web","creationTimestamp":"2026-01-01T00:00:00Z"},
        "spec":{"replicas":3,"selector":{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"k","operator":"In","values":["x","y"]}]},
        "template":{"spec":{"containers":[{"name":"c","image":"i"},{"name":"d","image":"j"}]}}},
        "status":{"readyReplicas":2,"updatedReplicas":3,"availableReplicas":2}});
    assert_eq!(
        cells("apps", "v1", "deployments", deployment),
        ["web", "2/3", "3", "2", "10m", "c,d", "i,j", "a=b,k in (x,y)"].map(Value::from)
    );
    let service = json!({"metadata":{"name":"s","creationTimestamp":"2026-01-01T00:00:00Z"},"spec":{"type":"LoadBalancer",
        "clusterIPs":["10.0.0.9"],"ports":[{"port":80,"nodePort":30080,"protocol":"TCP"},{"port":53,"protocol":"UDP"}],"selector":{"a":"b"}}});
    assert_eq!(
        cells("", "v1", "services", service),
        ["s", "LoadBalancer", "10.0.0.9", "<pending>", "80:30080/TCP,53/UDP", "10m", "a=b"].map(Value::from)
    );
    let hpa = json!({"metadata":{"name":"h"},"spec":{"minReplicas":1,"maxReplicas":5,"scaleTargetRef":{"kind":"Deployment","name":"web"},
        "metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":80}}}]},
        "status":{"currentReplicas":2,"currentMetrics":[{"type":"Resource","resource":{"name":"cpu","current":{"averageUtilization":12}}}]}});
    assert_eq!(
        cells("autoscaling", "v2", "horizontalpodautoscalers", hpa)[1..4],
        ["Deployment/web", "cpu: 12%/80%", "1"].map(Value::from)
    );
}

#[test]
fn nodes_and_events() {
    let node = json!({"metadata":{"name":"n","labels":{"node-role.kubernetes.io/agent":"","kubernetes.io/role":"x"}},
        "spec":{"unschedulable":true},"status":{"conditions":[{"type":"Ready","status":"True"}],
        "addresses":[{"type":"InternalIP","address":"10.224.0.4"}]}});
    let cells_of = cells("", "v1", "nodes", node);
    assert_eq!(cells_of[1..3], ["Ready,SchedulingDisabled", "agent,x"].map(Value::from));
    assert_eq!(cells_of[5], "10.224.0.4");
    let event = json!({"metadata":{"name":"e"},"type":"Normal","reason":"Started","message":" Started \n",
        "involvedObject":{"kind":"Pod","name":"p"},"source":{"component":"kubelet","host":"n"},
        "firstTimestamp":"2026-01-01T00:00:00Z","lastTimestamp":"2026-01-01T00:09:30Z","count":4});
    let wanted = [
        json!("30s"),
        json!("Normal"),
        json!("Started"),
        json!("pod/p"),
        json!(null),
        json!("kubelet, n"),
        json!("Started"),
        json!("10m"),
        json!("4"),
        json!("e"),
    ];
    assert_eq!(cells("", "v1", "events", event), wanted);
}

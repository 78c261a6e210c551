//! StatefulSets, DaemonSets, CronJobs and disruption budgets against the real API server, with a
//! kubelet that only pretends to run containers.

use crate::controllers::{Cluster, deployment, image, of};
use aksim::{
    controllers::{Clock, ControllersConfig},
    kubernetes::{ApiServer, ApiServerConfig},
    runtime::pki::Pki,
};
use jiff::{SignedDuration, Timestamp, ToSpan, tz::TimeZone};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{Event, Node, PersistentVolumeClaim, Pod, Service},
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, EvictParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// The pretended nodes renew no lease: they are to live longer than any test.
fn settings() -> ControllersConfig {
    ControllersConfig { node_monitor_grace: Duration::from_secs(3600), ..ControllersConfig::default() }
}

fn template(app: &str, image: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [
        {"name": "c", "image": image, "ports": [{"name": "sql", "containerPort": 3306}]}]}})
}

fn stateful_set(replicas: i32, more: Value) -> Value {
    let mut set = json!({"metadata": {"name": "db"}, "spec": {
        "replicas": replicas, "serviceName": "dbs", "selector": {"matchLabels": {"app": "db"}},
        "template": template("db", "db:1"),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}});
    json_patch::merge(&mut set["spec"], &more);
    set
}

/// The set when all its pods are ready and of one revision.
fn rolled_out(sets: &[StatefulSet]) -> Option<StatefulSet> {
    let set = sets.first()?;
    let (wanted, status) = (set.spec.as_ref()?.replicas, set.status.as_ref()?);
    let complete = status.observed_generation == set.metadata.generation
        && [Some(status.replicas), status.ready_replicas, status.updated_replicas].iter().all(|n| *n == wanted)
        && status.current_revision == status.update_revision;
    complete.then(|| set.clone())
}

/// Images of the pods by name.
fn images(pods: &[Pod]) -> BTreeMap<String, String> {
    let image = |p: &Pod| p.spec.as_ref()?.containers[0].image.clone();
    pods.iter().filter_map(|p| Some((p.name_any(), image(p)?))).collect()
}

fn all_run(pods: &[Pod], names: &[&str], image: &str) -> bool {
    images(pods) == names.iter().map(|n| ((*n).to_owned(), image.to_owned())).collect()
}

async fn names<K>(api: Api<K>) -> Vec<String>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let mut names: Vec<_> = api.list(&Default::default()).await.unwrap().iter().map(|o| o.name_any()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_gives_names_and_claims_and_rolls_by_partition() {
    let cluster = Cluster::start(2, settings()).await;
    cluster
        .create::<Service>(json!({"metadata": {"name": "dbs"}, "spec": {"clusterIP": "None", "selector": {"app": "db"},
            "publishNotReadyAddresses": true, "ports": [{"name": "sql", "port": 3306}]}}))
        .await;
    cluster.create::<StatefulSet>(stateful_set(3, json!({}))).await;
    let set = cluster.until("all three run", rolled_out).await;
    assert_eq!(set.status.as_ref().unwrap().available_replicas, Some(3));
    let pod = cluster.api::<Pod>().get("db-2").await.unwrap();
    let spec = pod.spec.clone().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-2"), Some("dbs")));
    assert_eq!(pod.labels()["apps.kubernetes.io/pod-index"], "2");
    assert_eq!(pod.labels()["statefulset.kubernetes.io/pod-name"], "db-2");
    let claim = spec.volumes.iter().flatten().find(|v| v.name == "data").unwrap().persistent_volume_claim.clone();
    assert_eq!(claim.unwrap().claim_name, "data-db-2");
    assert_eq!(names(cluster.api::<PersistentVolumeClaim>()).await, ["data-db-0", "data-db-1", "data-db-2"]);
    let hosts = |slices: &[EndpointSlice]| {
        let endpoints = slices.iter().flat_map(|s| s.endpoints.iter().flatten());
        let mut hosts: Vec<_> = endpoints.filter_map(|e| e.hostname.clone()).collect();
        hosts.sort();
        (hosts == ["db-0", "db-1", "db-2"]).then_some(())
    };
    cluster.until("host names of the endpoints", hosts).await;

    let mut partial = image("db:2");
    partial["spec"]["updateStrategy"] = json!({"rollingUpdate": {"partition": 2}});
    cluster.patch::<StatefulSet>("db", partial).await;
    cluster
        .until("the highest is updated", |s: &[StatefulSet]| {
            let (set, status) = (s.first()?, s.first()?.status.clone()?);
            let seen = status.observed_generation == set.metadata.generation;
            (seen && status.updated_replicas == Some(1) && status.ready_replicas == Some(3)).then_some(())
        })
        .await;
    let now = images(&cluster.api::<Pod>().list(&Default::default()).await.unwrap().items);
    assert_eq!(now.values().map(String::as_str).collect::<Vec<_>>(), ["db:1", "db:1", "db:2"]);
    // A pod below the partition comes back as it was.
    cluster.api::<Pod>().delete("db-0", &DeleteParams::default()).await.unwrap();
    cluster
        .until("db-0 comes back old", |p: &[Pod]| {
            let back = p.iter().find(|p| p.name_any() == "db-0" && p.uid() != pod.uid())?;
            (back.metadata.deletion_timestamp.is_none() && images(p)["db-0"] == "db:1").then_some(())
        })
        .await;
    cluster.patch::<StatefulSet>("db", json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})).await;
    cluster.until("all updated", rolled_out).await;
    let three = ["db-0", "db-1", "db-2"];
    cluster.until("images", |p: &[Pod]| all_run(p, &three, "db:2").then_some(())).await;

    // What `kubectl rollout undo` does: the data of the older revision as a patch.
    let revisions = cluster.api::<ControllerRevision>().list(&Default::default()).await.unwrap().items;
    assert_eq!(revisions.len(), 2);
    let first = revisions.iter().min_by_key(|r| r.revision).unwrap();
    cluster.patch::<StatefulSet>("db", first.data.as_ref().unwrap().0.clone()).await;
    cluster.until("undone", |p: &[Pod]| all_run(p, &three, "db:1").then_some(())).await;
    let mut numbers: Vec<_> = cluster
        .api::<ControllerRevision>()
        .list(&Default::default())
        .await
        .unwrap()
        .iter()
        .map(|r| r.revision)
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);

    let fewer = json!({"spec": {"replicas": 1, "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain"}}});
    cluster.patch::<StatefulSet>("db", fewer).await;
    cluster.until("one pod", |p: &[Pod]| (p.len() == 1 && p[0].name_any() == "db-0").then_some(())).await;
    assert_eq!(names(cluster.api::<PersistentVolumeClaim>()).await.len(), 3, "claims are kept");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordered_pods_wait_and_parallel_ones_do_not_and_claims_go_as_said() {
    let cluster = Cluster::start(1, settings()).await;
    let broken = json!({"template": {"metadata": {"labels": {"broken": "true"}}}});
    cluster.create::<StatefulSet>(stateful_set(3, broken)).await;
    let stuck = |s: &[StatefulSet]| {
        let status = s.first()?.status.clone()?;
        (status.replicas == 1 && status.ready_replicas.is_none()).then_some(())
    };
    cluster.until("db-0 is not ready", stuck).await;
    // A repaired template alone does not help an ordered set: its broken pod has to be deleted.
    let repaired = json!({"spec": {"template": {"metadata": {"labels": {"broken": null}}}}});
    cluster.patch::<StatefulSet>("db", repaired).await;
    cluster
        .until("the repair is seen", |s: &[StatefulSet]| {
            let (set, status) = (s.first()?, s.first()?.status.clone()?);
            (status.observed_generation == set.metadata.generation).then_some(())
        })
        .await;
    assert_eq!(names(cluster.api::<Pod>()).await, ["db-0"]);
    cluster.api::<Pod>().delete("db-0", &DeleteParams::default()).await.unwrap();
    cluster.until("all run", rolled_out).await;
    let policy = json!({"whenScaled": "Delete", "whenDeleted": "Delete"});
    cluster
        .patch::<StatefulSet>("db", json!({"spec": {"replicas": 2, "persistentVolumeClaimRetentionPolicy": policy}}))
        .await;
    let two = |c: &[PersistentVolumeClaim]| {
        let names: Vec<_> = c.iter().map(ResourceExt::name_any).collect();
        (names == ["data-db-0", "data-db-1"]).then_some(())
    };
    cluster.until("the claim went with its pod", two).await;
    cluster.until("scaled", rolled_out).await;
    cluster.api::<StatefulSet>().delete("db", &DeleteParams::foreground()).await.unwrap();
    cluster.until("no pod", |p: &[Pod]| p.is_empty().then_some(())).await;
    cluster.until("no claim", |c: &[PersistentVolumeClaim]| c.is_empty().then_some(())).await;
    cluster.until("no set", |s: &[StatefulSet]| s.is_empty().then_some(())).await;

    let all_at_once =
        json!({"podManagementPolicy": "Parallel", "template": {"metadata": {"labels": {"broken": "true"}}}});
    cluster.create::<StatefulSet>(stateful_set(3, all_at_once)).await;
    cluster.until("all three though none is ready", |p: &[Pod]| (p.len() == 3).then_some(())).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_takes_pods_in_and_replaces_failed_ones() {
    let cluster = Cluster::start(1, settings()).await;
    cluster.create::<StatefulSet>(stateful_set(2, json!({}))).await;
    let before = cluster.until("both run", rolled_out).await;
    cluster.api::<StatefulSet>().delete("db", &DeleteParams::orphan()).await.unwrap();
    cluster.until("gone", |s: &[StatefulSet]| s.is_empty().then_some(())).await;
    let orphans = cluster.api::<Pod>().list(&Default::default()).await.unwrap().items;
    assert!(orphans.iter().all(|p| p.owner_references().is_empty()));
    cluster.create::<StatefulSet>(stateful_set(2, json!({}))).await;
    let after = cluster.until("taken in", rolled_out).await;
    assert_ne!(before.uid(), after.uid());
    let now = cluster.api::<Pod>().list(&Default::default()).await.unwrap().items;
    let uids = |pods: &[Pod]| pods.iter().map(|p| p.uid()).collect::<Vec<_>>();
    assert_eq!(uids(&orphans), uids(&now), "the same pods");
    let failed = json!({"status": {"phase": "Failed"}});
    let params = PatchParams::default();
    cluster.api::<Pod>().patch_status("db-1", &params, &Patch::Merge(failed)).await.unwrap();
    cluster
        .until("db-1 replaced", |p: &[Pod]| {
            p.iter().any(|p| p.name_any() == "db-1" && p.uid() != now[1].uid()).then_some(())
        })
        .await;
    cluster.until("both run again", rolled_out).await;
    cluster
        .until("event", |e: &[Event]| {
            e.iter().any(|e| e.reason.as_deref() == Some("RecreatingFailedPod")).then_some(())
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_in_the_words_of_kubernetes() {
    let cluster = Cluster::start(0, settings()).await;
    cluster.create::<StatefulSet>(stateful_set(1, json!({}))).await;
    let params = PatchParams::default();
    let change = Patch::Merge(json!({"spec": {"serviceName": "other"}}));
    let error = cluster.api::<StatefulSet>().patch("db", &params, &change).await.unwrap_err().to_string();
    assert!(error.contains("updates to statefulset spec for fields other than 'replicas'"), "{error}");
    let cron = json!({"metadata": {"name": "bad"}, "spec": {"schedule": "99 * * * *", "timeZone": "Mars/Base",
        "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "x"}]}}}}}});
    let created = cluster.api::<CronJob>().create(&PostParams::default(), &of(cron)).await;
    let error = created.unwrap_err().to_string();
    assert!(error.contains("end of range (99) above maximum (59): 99"), "{error}");
    assert!(error.contains("unknown time zone Mars/Base"), "{error}");
    let budget = json!({"metadata": {"name": "bad"}, "spec": {"minAvailable": 1, "maxUnavailable": "x"}});
    let error = cluster.api::<PodDisruptionBudget>().create(&PostParams::default(), &of(budget)).await.unwrap_err();
    assert!(error.to_string().contains("minAvailable and maxUnavailable cannot be both set"), "{error}");
    cluster.stop().await;
}

fn on_nodes(pods: &[Pod]) -> Vec<String> {
    let alive = pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none());
    let mut nodes: Vec<_> = alive.filter_map(|p| p.spec.as_ref()?.node_name.clone()).collect();
    nodes.sort();
    nodes
}

fn daemons_rolled_out(sets: &[DaemonSet], nodes: i32) -> Option<()> {
    let (set, status) = (sets.first()?, sets.first()?.status.clone()?);
    let complete = status.observed_generation == set.metadata.generation
        && status.desired_number_scheduled == nodes
        && status.updated_number_scheduled == Some(nodes)
        && status.number_available == Some(nodes);
    complete.then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_set_follows_the_nodes_and_rolls_out() {
    let cluster = Cluster::start(2, settings()).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    nodes.patch("node-1", &PatchParams::default(), &cordon).await.unwrap();
    cluster
        .create::<DaemonSet>(json!({"metadata": {"name": "agent"}, "spec": {
            "selector": {"matchLabels": {"app": "agent"}}, "template": template("agent", "agent:1")}}))
        .await;
    cluster.until("on both nodes, the cordoned one too", |d: &[DaemonSet]| daemons_rolled_out(d, 2)).await;
    let pods = cluster.api::<Pod>().list(&Default::default()).await.unwrap().items;
    assert_eq!(on_nodes(&pods), ["node-0", "node-1"]);

    let node = json!({"metadata": {"name": "node-2"}});
    nodes.create(&PostParams::default(), &of(node)).await.unwrap();
    let status = json!({"status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
    nodes.patch_status("node-2", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    cluster.until("on the new node", |d: &[DaemonSet]| daemons_rolled_out(d, 3)).await;

    let taint = Patch::Merge(json!({"spec": {"taints": [{"key": "sku", "value": "gpu", "effect": "NoExecute"}]}}));
    nodes.patch("node-2", &PatchParams::default(), &taint).await.unwrap();
    cluster.until("off the tainted node", |p: &[Pod]| (on_nodes(p) == ["node-0", "node-1"]).then_some(())).await;
    cluster.until("two wanted", |d: &[DaemonSet]| daemons_rolled_out(d, 2)).await;

    cluster.patch::<DaemonSet>("agent", image("agent:2")).await;
    cluster
        .until("the new version", |p: &[Pod]| {
            (p.len() == 2 && images(p).values().all(|i| i == "agent:2")).then_some(())
        })
        .await;
    cluster.until("rolled out", |d: &[DaemonSet]| daemons_rolled_out(d, 2)).await;
    let revisions = cluster.api::<ControllerRevision>().list(&Default::default()).await.unwrap().items;
    let first = revisions.iter().min_by_key(|r| r.revision).unwrap();
    cluster.patch::<DaemonSet>("agent", first.data.as_ref().unwrap().0.clone()).await;
    cluster
        .until("undone", |p: &[Pod]| (p.len() == 2 && images(p).values().all(|i| i == "agent:1")).then_some(()))
        .await;
    let set = cluster.api::<DaemonSet>().get("agent").await.unwrap();
    assert_eq!(set.annotations()["deprecated.daemonset.template.generation"], "3");
    cluster.stop().await;
}

/// How far it is to just after the start of the next year in UTC, and when that is.
fn new_year(now: Timestamp) -> (SignedDuration, Timestamp) {
    let zoned = now.to_zoned(TimeZone::UTC);
    let year = zoned.first_of_year().unwrap().start_of_day().unwrap().checked_add(1.year()).unwrap();
    (year.timestamp().duration_since(now) + SignedDuration::from_secs(1), year.timestamp())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cron_job_starts_jobs_when_the_clock_says_so() {
    let clock = Clock::default();
    let config = ControllersConfig { clock: clock.clone(), ..settings() };
    let cluster = Cluster::start(1, config).await;
    let cron_job = |name: &str, policy: &str, command: &str| {
        json!({"metadata": {"name": name}, "spec": {"schedule": "@yearly", "concurrencyPolicy": policy,
            "successfulJobsHistoryLimit": 1, "jobTemplate": {"spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "c", "image": "x", "command": [command]}]}}}}}})
    };
    cluster.create::<CronJob>(cron_job("tidy", "Allow", "true")).await;
    cluster.create::<CronJob>(cron_job("slow", "Forbid", "sleep")).await;
    cluster.create::<CronJob>(cron_job("again", "Replace", "sleep")).await;
    let mut year = clock.now();
    for round in 0..2 {
        let (distance, due) = new_year(clock.now());
        clock.advance(distance);
        year = due;
        let minute = due.as_second() / 60;
        cluster
            .until("tidy has run", |c: &[CronJob]| {
                let status = c.iter().find(|c| c.name_any() == "tidy")?.status.clone()?;
                let done = status.active.is_none() && status.last_successful_time.is_some();
                (done && status.last_schedule_time?.0 == due).then_some(())
            })
            .await;
        let kept = |j: &[Job]| {
            let mut names: Vec<_> = j.iter().map(ResourceExt::name_any).filter(|n| n.starts_with("tidy-")).collect();
            names.sort();
            (names == [format!("tidy-{minute}")]).then_some(())
        };
        cluster.until("the last run is kept alone", kept).await;
        // The one of last year runs on under Forbid, and gives way under Replace.
        let first = round == 0;
        cluster
            .until("slow", |c: &[CronJob]| {
                let status = c.iter().find(|c| c.name_any() == "slow")?.status.clone()?;
                (status.active.iter().flatten().count() == 1 && (status.last_schedule_time?.0 == due) == first)
                    .then_some(())
            })
            .await;
        cluster
            .until("again", |c: &[CronJob]| {
                let status = c.iter().find(|c| c.name_any() == "again")?.status.clone()?;
                let active: Vec<_> = status.active.iter().flatten().filter_map(|a| a.name.clone()).collect();
                (active == [format!("again-{minute}")]).then_some(())
            })
            .await;
    }
    cluster
        .until("events", |e: &[Event]| {
            let has = |reason: &str| e.iter().any(|e| e.reason.as_deref() == Some(reason));
            ["JobAlreadyActive", "SawCompletedJob", "SuccessfulCreate", "SuccessfulDelete"]
                .iter()
                .all(|r| has(r))
                .then_some(())
        })
        .await;
    let job = cluster.api::<Job>().get(&format!("tidy-{}", year.as_second() / 60)).await.unwrap();
    assert_eq!(job.annotations()["batch.kubernetes.io/cronjob-scheduled-timestamp"], year.to_string());
    assert_eq!(job.owner_references()[0].kind, "CronJob");
    // Suspended: another year brings nothing.
    cluster.patch::<CronJob>("tidy", json!({"spec": {"suspend": true}})).await;
    cluster.api::<CronJob>().delete("slow", &DeleteParams::background()).await.unwrap();
    cluster
        .until("its job goes too", |j: &[Job]| j.iter().all(|j| !j.name_any().starts_with("slow-")).then_some(()))
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_refuses_and_allows_evictions() {
    let cluster = Cluster::start(2, settings()).await;
    cluster.create::<Deployment>(deployment("web", 3, "web:1")).await;
    let budget =
        json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 3, "selector": {"matchLabels": {"app": "web"}}}});
    cluster.create::<PodDisruptionBudget>(budget).await;
    let allows = |number: i32| {
        move |b: &[PodDisruptionBudget]| {
            let (budget, status) = (b.first()?, b.first()?.status.clone()?);
            let seen = status.observed_generation == budget.metadata.generation;
            let ready = status.current_healthy == Some(3) && status.expected_pods == Some(3);
            (seen && ready && status.disruptions_allowed == Some(number)).then_some(status)
        }
    };
    cluster.until("three healthy, none to spare", allows(0)).await;
    let pods = cluster.api::<Pod>();
    let name = names(pods.clone()).await.remove(0);
    let kube::Error::Api(refused) = pods.evict(&name, &EvictParams::default()).await.unwrap_err() else {
        panic!("not an answer of the API server")
    };
    assert_eq!((refused.code, refused.reason.as_str()), (429, "TooManyRequests"));
    assert_eq!(refused.message, "Cannot evict pod as it would violate the pod's disruption budget.");
    let cause = &refused.details.as_ref().unwrap().causes[0];
    assert_eq!(cause.reason, "DisruptionBudget");
    assert_eq!(cause.message, "The disruption budget web needs 3 healthy pods and has 3 currently");
    cluster.patch::<PodDisruptionBudget>("web", json!({"spec": {"minAvailable": "50%"}})).await;
    let status = cluster.until("one to spare", allows(1)).await;
    assert_eq!(status.desired_healthy, Some(2));
    pods.evict(&name, &EvictParams::default()).await.unwrap();
    cluster.until("the pod is gone", |p: &[Pod]| p.iter().all(|p| p.name_any() != name).then_some(())).await;
    cluster.until("replaced", allows(1)).await;
    cluster.patch::<PodDisruptionBudget>("web", json!({"spec": {"minAvailable": null, "maxUnavailable": 1}})).await;
    cluster.until("the other way round", allows(1)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_evictions_at_once_as_many_pass_as_the_budget_has() {
    let state = tempfile::tempdir().unwrap();
    let pki = Pki::open(&state.path().join("pki"), "aksim test").unwrap();
    let server = ApiServer::bind(ApiServerConfig::new(state.path().join("kubernetes"), pki)).await.unwrap();
    // No controller runs: what the budget allows is what is left of it.
    let client = server.in_process_client("admin", &["system:masters"]);
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client, "default");
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::namespaced(server.in_process_client("admin", &["system:masters"]), "default");
    accounts.create(&PostParams::default(), &of(json!({"metadata": {"name": "default"}}))).await.unwrap();
    let params = PatchParams::default();
    for index in 0..8 {
        let name = format!("p{index}");
        let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"nodeName": "n",
            "containers": [{"name": "c", "image": "x"}]}});
        pods.create(&PostParams::default(), &of(pod)).await.unwrap();
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        pods.patch_status(&name, &params, &Patch::Merge(ready)).await.unwrap();
    }
    let budget =
        json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 5, "selector": {"matchLabels": {"app": "web"}}}});
    budgets.create(&PostParams::default(), &of(budget)).await.unwrap();
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 3, "currentHealthy": 8,
        "desiredHealthy": 5, "expectedPods": 8}});
    budgets.patch_status("web", &params, &Patch::Merge(status)).await.unwrap();
    let names: Vec<String> = (0..8).map(|index| format!("p{index}")).collect();
    let params = EvictParams::default();
    let evictions = names.iter().map(|name| pods.evict(name, &params));
    let passed = futures::future::join_all(evictions).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(passed, 3);
    let left = budgets.get("web").await.unwrap().status.unwrap();
    assert_eq!((left.disruptions_allowed, left.disrupted_pods.unwrap().len()), (Some(0), 3));
    let leaving = pods.list(&Default::default()).await.unwrap().items;
    let leaving: Vec<_> = leaving.iter().filter(|p| p.metadata.deletion_timestamp.is_some()).collect();
    assert_eq!(leaving.len(), 3);
    let told = |p: &Pod| {
        let conditions = p.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|c| c.type_ == "DisruptionTarget" && c.reason.as_deref() == Some("EvictionByEvictionAPI"))
    };
    assert!(leaving.iter().all(|p| told(p)));
}

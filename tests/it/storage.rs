//! Claims, volumes, quotas and limits, as kubectl and pods see them.

use crate::{
    environment::{eventually, gone, kill_9},
    support::{Project, text},
};
use aksim::{
    kubernetes::{ApiServer, ApiServerConfig},
    runtime::pki::Pki,
};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, ResourceQuota};
use kube::{Api, api::PostParams};
use serde_json::json;
use std::path::PathBuf;

fn ok(project: &Project, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = project.kubectl(&words);
    assert!(output.status.success(), "kubectl {line}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn fails(project: &Project, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = project.kubectl(&words);
    assert!(!output.status.success(), "kubectl {line} succeeded: {}", text(&output));
    text(&output)
}

/// Applies a manifest in which `IMAGE` stands for the image of the service.
fn apply(project: &Project, manifest: &str) {
    let image = ok(project, "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}");
    project.write("applied.yaml", &manifest.replace("IMAGE", &image));
    ok(project, &format!("apply -f {}", project.path("applied.yaml").display()));
}

fn folders(project: &Project) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(project.environment_home().join("volumes"));
    entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

const CLAIM: &str = r#"apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
"#;

const WRITER: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {fsGroup: 2000}
  volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]
  containers:
  - name: c
    image: IMAGE
    command: [/bin/busybox, sh, -c, "/bin/busybox mkdir -p /data/sub; echo kept > /data/sub/file; exec /bin/busybox sleep 3600"]
    volumeMounts: [{name: v, mountPath: /data}]
    readinessProbe: {exec: {command: [/bin/busybox, test, -e, /data/sub/file]}, periodSeconds: 1}
"#;

const READER: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, persistentVolumeClaim: {claimName: data, readOnly: true}}]
  containers:
  - name: c
    image: IMAGE
    command: [/bin/busybox, sleep, "3600"]
    volumeMounts: [{name: v, mountPath: /part, subPath: sub}]
"#;

const SHARE: &str = r#"apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: share}
spec:
  storageClassName: azurefile-csi
  accessModes: [ReadWriteMany]
  resources: {requests: {storage: 5Gi}}
"#;

#[test]
fn data_outlives_pods_and_kill_9_and_goes_with_its_claim() {
    let project = Project::busybox("it-storage");
    project.up();
    apply(&project, CLAIM);
    eventually("the claim waits for its pod", || {
        ok(&project, "describe pvc data")
            .contains("waiting for first consumer to be created before binding")
            .then_some(())
    });
    apply(&project, WRITER);
    ok(&project, "wait --for=condition=Ready pod/writer --timeout=60s");
    assert_eq!(ok(&project, "get pvc data -o jsonpath={.status.phase}/{.spec.storageClassName}"), "Bound/default");
    let volume = ok(&project, "get pvc data -o jsonpath={.spec.volumeName}");
    let driver = ok(&project, &format!("get pv {volume} -o jsonpath={{.spec.csi.driver}}/{{.status.phase}}"));
    assert_eq!(driver, "disk.csi.azure.com/Bound");
    assert!(ok(&project, "get pvc data").contains("1Gi        RWO"));
    assert!(ok(&project, "describe pvc data").contains("ProvisioningSucceeded"));
    let folder = project.environment_home().join("volumes").join(&volume);
    assert_eq!(std::fs::read_to_string(folder.join("sub/file")).unwrap(), "kept\n");
    assert_eq!(ok(&project, "exec writer -- /bin/busybox stat -c %g /data/sub/file"), "2000\n");

    // The data outlives the pod, and is read-only for the next.
    ok(&project, "delete pod writer");
    apply(&project, READER);
    ok(&project, "wait --for=condition=Ready pod/reader --timeout=60s");
    assert_eq!(ok(&project, "exec reader -- /bin/busybox cat /part/file"), "kept\n");
    let refused = fails(&project, "exec reader -- /bin/busybox touch /part/other");
    assert!(refused.contains("Read-only file system"), "{refused}");

    // It grows by what is recorded, and never shrinks.
    ok(&project, r#"patch pvc data -p {"spec":{"resources":{"requests":{"storage":"3Gi"}}}}"#);
    ok(&project, "wait --for=jsonpath={.status.capacity.storage}=3Gi pvc/data --timeout=60s");
    let less = fails(&project, r#"patch pvc data -p {"spec":{"resources":{"requests":{"storage":"1Gi"}}}}"#);
    assert!(less.contains("field can not be less than status.capacity"), "{less}");

    // kill -9, then up.
    gone(kill_9(&project));
    project.up();
    assert_eq!(ok(&project, "get pvc data -o jsonpath={.status.phase}/{.spec.volumeName}"), format!("Bound/{volume}"));
    assert_eq!(ok(&project, "exec reader -- /bin/busybox cat /part/file"), "kept\n");

    // A claim in use stays until its pod is gone; then claim, volume and data go.
    ok(&project, "delete pvc data --wait=false");
    assert!(ok(&project, "get pvc data").contains("Terminating"));
    assert!(folder.exists());
    ok(&project, "delete pod reader");
    ok(&project, "wait --for=delete pvc/data --timeout=60s");
    ok(&project, &format!("wait --for=delete pv/{volume} --timeout=60s"));
    assert!(!folder.exists());

    // A share is there at once, without a pod, and goes with the environment.
    apply(&project, SHARE);
    ok(&project, "wait --for=jsonpath={.status.phase}=Bound pvc/share --timeout=60s");
    assert_eq!(folders(&project).len(), 1);
    project.ok(&["down", "--purge"]);
    assert!(!project.environment_home().exists());
}

const WAITING: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, SOURCE}]
  containers:
  - {name: c, image: IMAGE, command: [/bin/busybox, sleep, "3600"], volumeMounts: [{name: v, mountPath: /data}]}
"#;

/// A class and a volume made by hand, with its claim.
const BY_HAND: &str = r#"apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: by-hand}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: MODE
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: manual}
spec:
  storageClassName: by-hand
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
"#;

const LOCAL: &str = r#"apiVersion: v1
kind: PersistentVolume
metadata: {name: local-1}
spec:
  capacity: {storage: 2Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: by-hand
  persistentVolumeReclaimPolicy: Retain
  local: {path: FOLDER}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/os, operator: In, values: [linux]}]}]}}
"#;

#[test]
fn pods_wait_for_their_claims_with_a_reason() {
    let project = Project::busybox("it-claims");
    project.up();
    let waiting = |name: &str, claim: &str| {
        let source = format!("persistentVolumeClaim: {{claimName: {claim}}}");
        WAITING.replace("NAME", name).replace("SOURCE", &source)
    };
    let condition = "-o jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}";
    let says = |name: &str, wanted: &str| {
        eventually(wanted, || ok(&project, &format!("get pod {name} {condition}")).contains(wanted).then_some(()));
    };
    apply(&project, &waiting("early", "later"));
    says("early", "persistentvolumeclaim \"later\" not found");
    apply(&project, &CLAIM.replace("name: data", "name: later"));
    ok(&project, "wait --for=condition=Ready pod/early --timeout=60s");

    // Bound at once or never: the pod waits until somebody makes a volume, which is kept in the end.
    apply(&project, &BY_HAND.replace("MODE", "Immediate"));
    apply(&project, &waiting("patient", "manual"));
    says("patient", "pod has unbound immediate PersistentVolumeClaims");
    let folder = project.path("local");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("mine"), "own").unwrap();
    apply(&project, &LOCAL.replace("FOLDER", &folder.display().to_string()));
    ok(&project, "wait --for=condition=Ready pod/patient --timeout=60s");
    assert_eq!(ok(&project, "exec patient -- /bin/busybox cat /data/mine"), "own");
    ok(&project, "delete pod patient");
    ok(&project, "delete pvc manual");
    ok(&project, "wait --for=jsonpath={.status.phase}=Released pv/local-1 --timeout=60s");
    assert!(folder.join("mine").exists());

    // A claim made for its pod goes with it.
    let template = "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}";
    apply(&project, &WAITING.replace("NAME", "brief").replace("SOURCE", template));
    ok(&project, "wait --for=condition=Ready pod/brief --timeout=60s");
    assert_eq!(ok(&project, "get pvc brief-v -o jsonpath={.status.phase}"), "Bound");
    ok(&project, "delete pod brief");
    ok(&project, "wait --for=delete pvc/brief-v --timeout=60s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_side_by_side_never_pass_a_quota() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(&dir.path().join("pki"), "aksim test").unwrap();
    let server = ApiServer::bind(ApiServerConfig::new(dir.path().join("kubernetes"), pki)).await.unwrap();
    let client = server.in_process_client("admin", &["system:masters"]);
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), "default");
    let quota = json!({"metadata": {"name": "few"}, "spec": {"hard": {"count/configmaps": "5"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let creates = (0..20).map(|number| {
        let maps = maps.clone();
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": format!("m{number}")}})).unwrap();
        // Tasks of their own, so that they run on several threads.
        async move { tokio::spawn(async move { maps.create(&PostParams::default(), &map).await }).await.unwrap() }
    });
    let (made, refused): (Vec<_>, Vec<_>) = join_all(creates).await.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (5, 15));
    for refusal in refused {
        let Err(kube::Error::Api(status)) = refusal else { panic!("{refusal:?}") };
        assert_eq!(status.code, 403);
        let told = "exceeded quota: few, requested: count/configmaps=1, used: count/configmaps=";
        assert!(status.message.contains(told), "{}", status.message);
        assert!(status.message.ends_with("limited: count/configmaps=5"), "{}", status.message);
    }
    // One goes, one may come.
    let name = made[0].as_ref().unwrap().metadata.name.clone().unwrap();
    maps.delete(&name, &Default::default()).await.unwrap();
    maps.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "next"}})).unwrap())
        .await
        .unwrap();
}

const LIMITS: &str = r#"apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec:
  limits:
  - type: Container
    default: {memory: 64Mi, cpu: 200m}
    defaultRequest: {memory: 32Mi, cpu: 50m}
    max: {memory: 128Mi}
"#;

const LIMITED: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: limited}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: IMAGE
    command: [/bin/busybox, sleep, "3600"]
    env: [{name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}]
"#;

#[test]
fn limits_and_quotas_are_enforced_and_described() {
    let project = Project::busybox("it-limits");
    project.up();
    apply(&project, LIMITS);
    apply(&project, LIMITED);
    ok(&project, "wait --for=condition=Ready pod/limited --timeout=60s");
    assert_eq!(ok(&project, "exec limited -- /bin/busybox sh -c echo${IFS}$MEMORY"), "67108864\n");
    let described = ok(&project, "describe limits limits");
    let words = described.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("Container memory - 128Mi 32Mi 64Mi -"), "{described}");
    let big = LIMITED
        .replace("name: limited", "name: big")
        .replace("    env:", "    resources: {limits: {memory: 256Mi}}\n    env:");
    let image = ok(&project, "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}");
    project.write("big.yaml", &big.replace("IMAGE", &image));
    let refused = fails(&project, &format!("apply -f {}", project.path("big.yaml").display()));
    assert!(refused.contains("maximum memory usage per Container is 128Mi, but limit is 256Mi"), "{refused}");

    ok(&project, "create namespace bounded");
    ok(&project, "create quota small --hard=pods=1,configmaps=3,requests.storage=4Gi -n bounded");
    ok(&project, "wait --for=jsonpath={.status.used.configmaps}=1 quota/small -n bounded --timeout=60s");
    ok(&project, "create configmap one -n bounded");
    ok(&project, "wait --for=jsonpath={.status.used.configmaps}=2 quota/small -n bounded --timeout=60s");
    let described = ok(&project, "describe quota small -n bounded");
    assert!(described.contains("configmaps        2     3"), "{described}");
    assert!(ok(&project, "describe namespace bounded").contains("small"));
    ok(&project, "create configmap two -n bounded");
    let refused = fails(&project, "create configmap three -n bounded");
    let wanted = "configmaps \"three\" is forbidden: exceeded quota: small, requested: configmaps=1, used: configmaps=3, limited: configmaps=3";
    assert!(refused.contains(wanted), "{refused}");
    ok(&project, "create quota computing --hard=limits.cpu=1 -n bounded");
    let refused = fails(&project, &format!("run silent --image={image} -n bounded"));
    assert!(refused.contains("failed quota: computing: must specify limits.cpu for: silent"), "{refused}");
}

//! Bodies are encoded by the bindings of another project, from the same `.proto` files.

use super::*;
use k8s_pb::api::{apps::v1 as apps, authentication::v1 as authentication, core::v1 as core, policy::v1 as policy};
use k8s_pb::apimachinery::pkg::{api::resource, apis::meta::v1 as meta, util::intstr};
use prost::Message;
use serde_json::json;

fn body(api_version: &str, kind: &str, message: &impl Message) -> Vec<u8> {
    use prost::encoding::{bytes, string};
    let mut type_meta = Vec::new();
    string::encode(1, &api_version.to_owned(), &mut type_meta);
    string::encode(2, &kind.to_owned(), &mut type_meta);
    let mut body = MAGIC.to_vec();
    bytes::encode(1, &type_meta, &mut body);
    bytes::encode(2, &message.encode_to_vec(), &mut body);
    // What client-go always adds: empty contentEncoding and contentType.
    string::encode(3, &String::new(), &mut body);
    string::encode(4, &String::new(), &mut body);
    body
}

fn metadata(name: &str) -> Option<meta::ObjectMeta> {
    Some(meta::ObjectMeta {
        name: Some(name.into()),
        // Go writes these though they are empty.
        namespace: Some(String::new()),
        generation: Some(0),
        creation_timestamp: Some(meta::Time::default()),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        ..Default::default()
    })
}

#[test]
fn a_deployment_as_kubectl_create_sends_it() {
    let number = |n| Some(intstr::IntOrString { r#type: Some(0), int_val: Some(n), str_val: Some(String::new()) });
    let container = core::Container {
        name: Some("web".into()),
        image: Some("nginx:1".into()),
        stdin: Some(false),
        ports: vec![core::ContainerPort { container_port: Some(80), host_port: Some(0), ..Default::default() }],
        resources: Some(core::ResourceRequirements {
            limits: [("cpu".to_owned(), resource::Quantity { string: Some("1500m".into()) })].into(),
            ..Default::default()
        }),
        env: vec![core::EnvVar {
            name: Some("E".into()),
            value_from: Some(core::EnvVarSource {
                secret_key_ref: Some(core::SecretKeySelector {
                    local_object_reference: Some(core::LocalObjectReference { name: Some("s".into()) }),
                    key: Some("k".into()),
                    optional: Some(false),
                }),
                ..Default::default()
            }),
            ..Default::default()
        }],
        liveness_probe: Some(core::Probe {
            handler: Some(core::ProbeHandler {
                http_get: Some(core::HttpGetAction { port: number(8080), ..Default::default() }),
                ..Default::default()
            }),
            initial_delay_seconds: Some(0),
            ..Default::default()
        }),
        ..Default::default()
    };
    let volume = core::Volume {
        name: Some("v".into()),
        volume_source: Some(core::VolumeSource {
            empty_dir: Some(core::EmptyDirVolumeSource::default()),
            ..Default::default()
        }),
    };
    let deployment = apps::Deployment {
        metadata: metadata("web"),
        spec: Some(apps::DeploymentSpec {
            replicas: Some(0),
            strategy: Some(apps::DeploymentStrategy::default()),
            min_ready_seconds: Some(0),
            template: Some(core::PodTemplateSpec {
                metadata: None,
                spec: Some(core::PodSpec {
                    containers: vec![container],
                    volumes: vec![volume],
                    host_network: Some(false),
                    automount_service_account_token: Some(false),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }),
        status: Some(apps::DeploymentStatus::default()),
    };
    let wanted = json!({"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","labels":{"a":"b"}},
        "spec":{"replicas":0,"strategy":{},"template":{"spec":{"automountServiceAccountToken":false,
            "containers":[{"name":"web","image":"nginx:1","ports":[{"containerPort":80}],
                "resources":{"limits":{"cpu":"1500m"}},
                "env":[{"name":"E","valueFrom":{"secretKeyRef":{"name":"s","key":"k","optional":false}}}],
                "livenessProbe":{"httpGet":{"port":8080}}}],
            "volumes":[{"name":"v","emptyDir":{}}]}}},"status":{}});
    assert_eq!(object(&body("apps/v1", "Deployment", &deployment)).unwrap(), wanted);
}

#[test]
fn times_bytes_and_small_kinds() {
    let at = |seconds| Some(meta::Time { seconds: Some(seconds), nanos: Some(0) });
    let secret = core::Secret {
        metadata: Some(meta::ObjectMeta { deletion_timestamp: at(1_700_000_000), ..Default::default() }),
        data: [("k".to_owned(), b"\x00\xff".to_vec())].into(),
        r#type: Some("Opaque".into()),
        ..Default::default()
    };
    assert_eq!(
        object(&body("v1", "Secret", &secret)).unwrap(),
        json!({"apiVersion":"v1","kind":"Secret","metadata":{"deletionTimestamp":"2023-11-14T22:13:20Z"},
            "data":{"k":"AP8="},"type":"Opaque"})
    );
    let token = authentication::TokenRequest {
        spec: Some(authentication::TokenRequestSpec {
            audiences: vec!["x".into()],
            expiration_seconds: Some(600),
            ..Default::default()
        }),
        ..Default::default()
    };
    let token = object(&body("authentication.k8s.io/v1", "TokenRequest", &token)).unwrap();
    assert_eq!(token["spec"], json!({"audiences":["x"],"expirationSeconds":600}));
    let eviction = policy::Eviction {
        metadata: metadata("p"),
        delete_options: Some(meta::DeleteOptions { grace_period_seconds: Some(0), ..Default::default() }),
    };
    let eviction = object(&body("policy/v1", "Eviction", &eviction)).unwrap();
    assert_eq!(eviction["deleteOptions"], json!({"gracePeriodSeconds":0}));
    let options = meta::DeleteOptions { propagation_policy: Some("Foreground".into()), ..Default::default() };
    let options = object(&body("v1", "DeleteOptions", &options)).unwrap();
    assert_eq!(options["propagationPolicy"], "Foreground");
}

#[test]
fn broken_bodies_are_errors() {
    let whole = body("apps/v1", "Deployment", &apps::Deployment { metadata: metadata("x"), ..Default::default() });
    for bad in [&b"{}"[..], b"k8s\0", b"k8s\0\x0a\xff", &whole[..whole.len() - 20]] {
        assert!(matches!(object(bad), Err(CodecError::Malformed(_))), "{bad:?}");
    }
    assert!(object(&body("apps/v9", "Deployment", &apps::Deployment::default())).is_err());
}

proptest::proptest! {
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), kind in "Pod|Secret|Event") {
        let mut bytes = MAGIC.to_vec();
        let mut type_meta = Vec::new();
        prost::encoding::string::encode(1, &"v1".to_owned(), &mut type_meta);
        prost::encoding::string::encode(2, &kind, &mut type_meta);
        prost::encoding::bytes::encode(1, &type_meta, &mut bytes);
        prost::encoding::bytes::encode(2, &noise, &mut bytes);
        let _ = object(&bytes);
    }
}

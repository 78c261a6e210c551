use super::*;

fn parsed(document: &Document) -> Value {
    serde_json::from_slice(&document.bytes).unwrap()
}

#[test]
fn v3_has_what_kubectl_looks_for() {
    let schema = Schema::builtin();
    let index = parsed(&v3_index(&schema));
    assert!(
        index["paths"]["apis/apps/v1"]["serverRelativeURL"]
            .as_str()
            .unwrap()
            .starts_with("/openapi/v3/apis/apps/v1?hash=")
    );
    let apps = parsed(&v3(&schema, "apis/apps/v1").unwrap());
    let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"], json!({"group":"apps","version":"v1","kind":"Deployment"}));
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    assert!(
        patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query")
    );
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    let spec = &apps["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(spec["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(spec["x-kubernetes-list-map-keys"], json!(["name"]));
    assert!(spec["description"].as_str().unwrap().starts_with("List of containers"));
    assert!(v3(&schema, "apis/nothing/v1").is_none());
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| match value.as_str() {
                Some(text) if key == "$ref" && text.starts_with('#') => found.push(text.to_owned()),
                _ => references(value, found),
            }),
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let schema = Schema::builtin();
    let mut documents = vec![parsed(&v2(&schema))];
    for path in parsed(&v3_index(&schema))["paths"].as_object().unwrap().keys() {
        documents.push(parsed(&v3(&schema, path).unwrap()));
    }
    for document in documents {
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty() || document["paths"].as_object().unwrap().keys().all(|p| p.contains("metrics")));
        for reference in found {
            assert!(document.pointer(&reference[1..]).is_some_and(Value::is_object), "{reference}");
        }
    }
}

#[test]
fn gnostic_starts_with_its_version_and_is_whole() {
    use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
    let schema = Schema::builtin();
    let document = v2_protobuf(&schema);
    let mut buffer = &document.bytes[..];
    let mut tags = Vec::new();
    while !buffer.is_empty() {
        let (tag, wire) = decode_key(&mut buffer).unwrap();
        tags.push(tag);
        if tag == 1 {
            assert_eq!(wire, WireType::LengthDelimited);
            let length = decode_varint(&mut buffer).unwrap() as usize;
            assert_eq!(&buffer[..length], b"2.0");
            buffer = &buffer[length..];
        } else {
            skip_field(wire, tag, &mut buffer, DecodeContext::default()).unwrap();
        }
    }
    assert_eq!(tags, [1, 2, 8, 9]);
}

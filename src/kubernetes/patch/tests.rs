use super::*;
use crate::schema::{GroupVersion, Schema};
use serde_json::json;

#[test]
fn strategic_patches_of_the_fixtures() {
    let schema = Schema::builtin();
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("../../../fixtures/kubernetes/patch/strategic.json")).unwrap();
    assert!(cases.len() > 10);
    for case in cases {
        let (group_version, name) = case["resource"].as_str().unwrap().rsplit_once('/').unwrap();
        let version = GroupVersion::parse(group_version);
        let resource = schema.resource(&version.group, &version.version, name).unwrap();
        let mut object = case["live"].clone();
        let outcome = strategic(&mut object, &case["patch"], resource.definition().unwrap());
        match (outcome, case.get("error")) {
            (Ok(()), None) => assert_eq!(object, case["want"], "{}", case["title"]),
            (Err(error), Some(wanted)) => {
                assert_eq!(error.to_string(), wanted.as_str().unwrap(), "{}", case["title"]);
                assert_eq!(object, case["live"], "{}", case["title"]);
            }
            (outcome, _) => panic!("{}: {outcome:?}", case["title"]),
        }
    }
}

#[test]
fn json_and_merge_patches() {
    let mut object = json!({"a":{"b":1},"l":[1]});
    json(&mut object, &json!([{"op":"test","path":"/a/b","value":1},{"op":"add","path":"/l/-","value":2}])).unwrap();
    assert_eq!(object, json!({"a":{"b":1},"l":[1,2]}));
    let before = object.clone();
    let failed = json(&mut object, &json!([{"op":"remove","path":"/l/0"},{"op":"test","path":"/a/b","value":2}]));
    assert!(matches!(failed, Err(PatchError::Unprocessable(_))));
    assert_eq!(object, before);
    assert!(matches!(json(&mut object, &json!({"op":"add"})), Err(PatchError::Malformed(_))));
    merge(&mut object, &json!({"a":{"b":null,"c":2},"l":[3]}));
    assert_eq!(object, json!({"a":{"c":2},"l":[3]}));
}

use super::*;
use crate::schema::Schema;

fn writer(manager: &'static str, second: i64) -> Writer<'static> {
    Writer { manager, subresource: "", now: jiff::Timestamp::from_second(second).unwrap() }
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::builtin);

fn deployments() -> &'static Resource {
    SCHEMA.resource("apps", "v1", "deployments").unwrap()
}

fn deployment(replicas: i64, image: &str) -> Value {
    json!({"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","labels":{"app":"web"}},"spec":{
        "replicas":replicas,"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},
        "spec":{"containers":[{"name":"web","image":image,"ports":[{"containerPort":80}]}]}}}})
}

fn managed(object: &Value) -> &Value {
    &object["metadata"]["managedFields"]
}

#[test]
fn an_applied_object_is_owned_as_kube_writes_it() {
    let created = apply(deployments(), None, &deployment(1, "a"), writer("kubectl", 0), false).unwrap();
    assert_eq!(
        *managed(&created),
        json!([{"manager":"kubectl","operation":"Apply","apiVersion":"apps/v1",
        "time":"1970-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{
        "f:metadata":{"f:labels":{"f:app":{}}},
        "f:spec":{"f:replicas":{},"f:selector":{},"f:template":{"f:metadata":{"f:labels":{"f:app":{}}},
            "f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:image":{},"f:name":{},
                "f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}}}}}}}])
    );
    let again = apply(deployments(), Some(&created), &deployment(1, "a"), writer("kubectl", 9), false).unwrap();
    assert_eq!(again, created, "an unchanged apply changes nothing, not even the time");
}

#[test]
fn a_created_object_is_owned_by_its_creator() {
    let mut object = deployment(1, "a");
    track_update(deployments(), None, &mut object, writer("kubectl-create", 0)).unwrap();
    let fields = &managed(&object)[0]["fieldsV1"];
    assert_eq!(fields["f:metadata"], json!({"f:labels":{".":{},"f:app":{}}}));
    assert_eq!(fields["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"web\"}"]["f:image"], json!({}));
    assert_eq!(managed(&object)[0]["operation"], "Update");
    let before = object.clone();
    track_update(deployments(), Some(&before), &mut object, writer("other", 5)).unwrap();
    assert_eq!(object, before, "an update that changes nothing owns nothing");
}

#[test]
fn conflicts_are_told_and_forced() {
    let mut live = deployment(1, "a");
    track_update(deployments(), None, &mut live, writer("kubectl-create", 0)).unwrap();
    let refused = apply(deployments(), Some(&live), &deployment(3, "a"), writer("me", 1), false);
    let Err(PatchError::Conflict { message, causes }) = refused else { panic!("{refused:?}") };
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1 at 1970-01-01T00:00:00Z: .spec.replicas"
    );
    assert_eq!(causes[0].field, ".spec.replicas");
    let refused = apply(deployments(), Some(&live), &deployment(3, "b"), writer("me", 1), false);
    let Err(PatchError::Conflict { message, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(
        message,
        "Apply failed with 2 conflicts: conflicts with \"kubectl-create\" using apps/v1 at 1970-01-01T00:00:00Z:\n\
         - .spec.replicas\n- .spec.template.spec.containers[name=\"web\"].image"
    );
    let forced = apply(deployments(), Some(&live), &deployment(3, "a"), writer("me", 1), true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 3);
    let creator = managed(&forced).as_array().unwrap().iter().find(|m| m["manager"] == "kubectl-create").unwrap();
    assert_eq!(creator["fieldsV1"]["f:spec"].get("f:replicas"), None);
}

#[test]
fn what_is_no_longer_applied_goes_unless_owned_by_another() {
    let mut first = deployment(1, "a");
    first["metadata"]["annotations"] = json!({"mine":"1","shared":"1"});
    first["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap().push(json!({"name":"side","image":"s"}));
    let created = apply(deployments(), None, &first, writer("one", 0), false).unwrap();
    let other =
        json!({"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","annotations":{"shared":"1"}}});
    let shared = apply(deployments(), Some(&created), &other, writer("two", 1), false).unwrap();
    let left = apply(deployments(), Some(&shared), &deployment(1, "a"), writer("one", 2), false).unwrap();
    assert_eq!(left["metadata"]["annotations"], json!({"shared":"1"}));
    assert_eq!(left["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
    let mut without = deployment(1, "a");
    without["spec"].as_object_mut().unwrap().remove("replicas");
    let dropped = apply(deployments(), Some(&left), &without, writer("one", 3), false).unwrap();
    assert_eq!(dropped["spec"].get("replicas"), None, "then the default comes back");
}

#[test]
fn an_applier_takes_fields_that_another_updates() {
    let created = apply(deployments(), None, &deployment(1, "a"), writer("one", 0), false).unwrap();
    let mut scaled = created.clone();
    scaled["spec"]["replicas"] = 5.into();
    track_update(deployments(), Some(&created), &mut scaled, Writer { subresource: "scale", ..writer("hpa", 1) })
        .unwrap();
    assert_eq!(managed(&scaled)[0]["fieldsV1"]["f:spec"].get("f:replicas"), None);
    assert_eq!(managed(&scaled)[1]["subresource"], "scale");
    let status = Writer { subresource: "status", ..writer("controller", 2) };
    let mut reported = scaled.clone();
    reported["status"] = json!({"readyReplicas":5,"conditions":[{"type":"Available","status":"True"}]});
    track_update(deployments(), Some(&scaled), &mut reported, status).unwrap();
    let entry = managed(&reported).as_array().unwrap().iter().find(|m| m["manager"] == "controller").unwrap();
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:status":{"f:readyReplicas":{},
        "f:conditions":{".":{},"k:{\"type\":\"Available\"}":{".":{},"f:type":{},"f:status":{}}}}})
    );
}

#[test]
fn lists_merge_by_their_keys_in_order() {
    let services = SCHEMA.resource("", "v1", "services").unwrap();
    let object =
        |ports: Value| json!({"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"ports":ports}});
    let created = apply(services, None, &object(json!([{"port":1},{"port":2}])), writer("one", 0), false).unwrap();
    let more =
        apply(services, Some(&created), &object(json!([{"port":3},{"port":2,"name":"b"}])), writer("two", 1), false)
            .unwrap();
    assert_eq!(more["spec"]["ports"], json!([{"port":3},{"port":1},{"port":2,"name":"b"}]));
    let gone = apply(services, Some(&more), &object(json!([{"port":2}])), writer("one", 2), false).unwrap();
    assert_eq!(gone["spec"]["ports"], json!([{"port":3},{"port":2,"name":"b"}]));
}

#[test]
fn many_updaters_are_joined() {
    let mut live = deployment(0, "a");
    for n in 0..14i64 {
        let before = live.clone();
        live["metadata"]["labels"][format!("l{n}")] = "x".into();
        let name: &'static str = Box::leak(format!("m{n}").into_boxed_str());
        track_update(deployments(), Some(&before), &mut live, writer(name, n)).unwrap();
    }
    let managers = managed(&live).as_array().unwrap();
    assert_eq!(managers.len(), 10);
    assert!(managers.iter().any(|m| m["manager"] == "ancient-changes"));
}

#[test]
fn bad_input_is_an_error() {
    let mut with = deployment(1, "a");
    with["metadata"]["managedFields"] = json!([{"manager":"x","operation":"Update"}]);
    assert!(matches!(apply(deployments(), None, &with, writer("m", 0), false), Err(PatchError::Malformed(_))));
    let mut keyless = deployment(1, "a");
    keyless["spec"]["template"]["spec"]["containers"] = json!([{"image":"x"}]);
    assert!(matches!(apply(deployments(), None, &keyless, writer("m", 0), false), Err(PatchError::Malformed(_))));
    let mut reset = deployment(1, "a");
    reset["metadata"]["managedFields"] = json!([{}]);
    track_update(deployments(), None, &mut reset, writer("m", 0)).unwrap();
    assert_eq!(reset["metadata"].get("managedFields"), None);
}

mod laws {
    use super::*;
    use proptest::prelude::*;

    fn object() -> impl Strategy<Value = Value> {
        let labels = proptest::collection::btree_map("[a-c]", "[x-z]", 0..3);
        let names = proptest::sample::subsequence(vec!["a", "b", "c"], 1..=3).prop_shuffle();
        (labels, names, proptest::option::of(0..3i64), "[p-r]").prop_map(|(labels, names, replicas, image)| {
            let containers: Vec<Value> = names.iter().map(|n| json!({"name":n,"image":image})).collect();
            let mut object = deployment(0, "a");
            object["metadata"]["labels"] = json!(labels);
            object["spec"]["template"]["spec"]["containers"] = json!(containers);
            match replicas {
                Some(n) => object["spec"]["replicas"] = n.into(),
                None => drop(object["spec"].as_object_mut().unwrap().remove("replicas")),
            }
            object
        })
    }

    /// The order of keyed items alone is no change, as in kube.
    fn sorted(mut object: Value) -> Value {
        let containers = object["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
        containers.sort_by_key(|container| container["name"].as_str().unwrap().to_owned());
        object
    }

    fn of_containers(names: &[&str]) -> Value {
        let mut object = deployment(0, "a");
        object["metadata"]["labels"] = json!({});
        object["spec"].as_object_mut().unwrap().remove("replicas");
        object["spec"]["template"]["spec"]["containers"] =
            names.iter().map(|name| json!({"name": name, "image": "q"})).collect();
        object
    }

    /// What the laws below found once.
    #[test]
    fn another_order_of_keyed_items_is_no_change() {
        let [first, second, third] = [&["b", "a", "c"][..], &["a", "b", "c"], &["b", "c", "a"]].map(of_containers);
        let one = apply(deployments(), None, &first, writer("one", 0), false).unwrap();
        let mut two = apply(deployments(), Some(&one), &second, writer("one", 1), false).unwrap();
        two["metadata"].as_object_mut().unwrap().remove("managedFields");
        two["metadata"].as_object_mut().unwrap().entry("labels").or_insert_with(|| json!({}));
        assert_eq!(sorted(two), sorted(second.clone()));

        let one = apply(deployments(), None, &second, writer("one", 0), true).unwrap();
        let two = apply(deployments(), Some(&one), &of_containers(&["c"]), writer("two", 1), true).unwrap();
        let three = apply(deployments(), Some(&two), &third, writer("one", 2), true).unwrap();
        assert_eq!(three, apply(deployments(), Some(&three), &third, writer("one", 3), true).unwrap());
    }

    proptest! {
        #[test]
        fn applying_twice_changes_nothing(first in object(), second in object(), third in object()) {
            let one = apply(deployments(), None, &first, writer("one", 0), true).unwrap();
            let two = apply(deployments(), Some(&one), &second, writer("two", 1), true).unwrap();
            let three = apply(deployments(), Some(&two), &third, writer("one", 2), true).unwrap();
            let again = apply(deployments(), Some(&three), &third, writer("one", 3), true).unwrap();
            prop_assert_eq!(&three, &again);
            // What is applied holds.
            prop_assert_eq!(&sorted(typed::merge(place(deployments()), &three, &third).unwrap()), &sorted(three));
        }

        #[test]
        fn alone_an_applier_gets_exactly_what_it_applies(first in object(), second in object()) {
            let one = apply(deployments(), None, &first, writer("one", 0), false).unwrap();
            let mut two = apply(deployments(), Some(&one), &second, writer("one", 1), false).unwrap();
            two["metadata"].as_object_mut().unwrap().remove("managedFields");
            let mut wanted = second;
            if two["metadata"].get("labels").is_none() && wanted["metadata"]["labels"] == json!({}) {
                wanted["metadata"].as_object_mut().unwrap().remove("labels");
            }
            prop_assert_eq!(sorted(two), sorted(wanted));
        }

        #[test]
        fn updates_never_own_what_did_not_change(first in object(), second in object()) {
            let mut one = first;
            track_update(deployments(), None, &mut one, writer("one", 0)).unwrap();
            let mut two = second;
            track_update(deployments(), Some(&one), &mut two, writer("two", 1)).unwrap();
            let managers = Managers::of(&two).unwrap();
            let all: Vec<_> = managers.0.iter().collect();
            for (at, a) in all.iter().enumerate() {
                for b in &all[at + 1..] {
                    prop_assert_eq!(a.fields.intersection(&b.fields), FieldSet::default());
                }
            }
        }
    }
}

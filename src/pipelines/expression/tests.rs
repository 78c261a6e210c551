//! The language, by examples whose results the service is known to give.

use super::{parser::MAX_LENGTH, *};
use std::sync::Arc;

struct Fixture;

impl Scope for Fixture {
    fn context(&self, name: &str) -> Option<Value> {
        let json = match name.to_ascii_lowercase().as_str() {
            "parameters" => serde_json::json!({"obj": {"a": 1, "b_c": 2, "dotted.name": "five", "1": "one",
                "list": [{"id": 7}, {"id": 8}, {"no": 1}]}, "items": ["Alpha", "", 2], "myParam": "x"}),
            "variables" => serde_json::json!({"My.Var": "dotted", "Agent.JobStatus": "Succeeded"}),
            _ => return None,
        };
        Some(Value::from_json(&json))
    }

    fn function(&self, name: &str) -> Option<RangeInclusive<usize>> {
        status_function(name, false)
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        Ok(Value::from(format!("{name}/{}", arguments.len())))
    }
}

fn shown(text: &str) -> String {
    match evaluate(text, &Fixture) {
        Ok(value) => value.as_text().unwrap_or_else(|| value.to_json().to_string()),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn cases(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(shown(text), *expected, "{text}");
    }
}

#[test]
fn literals() {
    cases(&[
        ("TRUE", "True"),
        (".5", "0.5"),
        ("1.", "1"),
        ("-1.2", "-1.2"),
        ("1000000", "1000000"),
        ("'It''s OK'", "It's OK"),
        ("1.2.3.4", "1.2.3.4"),
    ]);
}

#[test]
fn members() {
    cases(&[
        ("parameters.obj.b_c", "2"),
        ("PARAMETERS.MYPARAM", "x"),
        ("parameters.obj['dotted.name']", "five"),
        ("parameters.obj[1]", "one"),
        ("parameters.obj.list[parameters.obj.a].id", "8"),
        ("parameters.obj.list.*.id", "[7,8]"),
        ("parameters.obj.list[*].id", "[7,8]"),
        ("split('a,b', ',')[1]", "b"),
        ("split('a,b', ',')[1.9]", "b"),
        ("split('a,b', ',')[-1]", ""),
        ("parameters.OBJ.a", "1"),
        ("parameters.obj.A", ""),
        ("parameters.obj.list.*.ID", "[]"),
        ("variables['MY.VAR']", "dotted"),
        ("parameters.obj.nosuch.deeper", ""),
        ("parameters.nosuch", "Key not found 'nosuch'"),
        ("variables['My.Var']", "dotted"),
        ("variables.My.Var", ""),
    ]);
}

#[test]
fn conversions() {
    cases(&[
        ("eq(.5, '0.5')", "True"),
        ("eq(1000, '1,000')", "True"),
        ("eq(1, 'x')", "False"),
        ("ne(1, 'x')", "True"),
        ("lt(1, 'x')", "Unable to convert from String to Number. Value: 'x'"),
        ("eq(0, variables.none)", "True"),
        ("eq('', variables.none)", "True"),
        ("eq(variables.none, '')", "True"),
        ("eq(true, 'x')", "True"),
        ("eq('ABC', 'abc')", "True"),
        ("gt(1.10, 1.9)", "False"),
        ("gt(1.10.0, 1.9.0)", "True"),
        ("lt(1.2.0, '1.3')", "True"),
        ("eq(1.2.0, '1.2')", "False"),
        ("eq(parameters.obj, parameters.obj)", "False"),
        ("eq(1.2.3, '1.2.3')", "True"),
        ("ge('b', 'A')", "True"),
        ("le(1, true)", "True"),
    ]);
    let shared = Value::from_json(&serde_json::json!([1]));
    assert!(shared.equals(&shared.clone()), "the same collection is equal to itself");
}

#[test]
fn functions() {
    cases(&[
        ("and(false, lt(1, 'x'))", "False"),
        ("or(true, lt(1, 'x'))", "True"),
        ("xor(true, 0)", "True"),
        ("not('')", "True"),
        ("contains('Hello', 'ELL')", "True"),
        ("contains(parameters.items, 'a')", "Unable to convert from Array to String. Value: Array"),
        ("containsValue(parameters.items, 'alpha')", "True"),
        ("containsValue(parameters.obj, 2)", "True"),
        ("startsWith(12345, '123')", "True"),
        ("endsWith('AbCdE', 'DE')", "True"),
        ("in('a', 'b', 'A', lt(1, 'x'))", "True"),
        ("notIn('a', 'b')", "True"),
        ("coalesce(variables.none, '', 0)", "0"),
        ("iif(eq(1, 1), 'y', 'n')", "y"),
        ("join(';', parameters.items)", "Alpha;;2"),
        ("join('-', 12)", "12"),
        ("split('a,b;c,,', ',;')", "[\"a,b;c,,\"]"),
        ("length(split('a,b', ','))", "2"),
        ("length('abc')", "3"),
        ("lower('äB')", "äb"),
        ("upper('äb')", "ÄB"),
        ("trim('  x ')", "x"),
        ("replace('AaA', 'a', 'x')", "AxA"),
        ("replace('abc', '', 'x')", "abc"),
        ("format('{1}-{0}-{1} {{{0}}}', 'A', 'B')", "B-A-B {A}"),
        ("format('{2}', 1)", "The following format string references more arguments than were supplied: '{2}'"),
        ("format('{', 1)", "The following format string is invalid: '{'"),
        ("format('{0:yyyyMMdd}', '2026-03-07T10:00:00Z')", "20260307"),
        ("convertToJson('text')", "\"text\""),
        ("convertToJson(split('a', ','))", "[\n  \"a\"\n]"),
        ("Succeeded('a', 'b')", "Succeeded/2"),
    ]);
}

#[test]
fn mistakes_are_worded_and_placed_as_in_azure() {
    let at = |message: &str, position: usize, text: &str| {
        format!("{message}. Located at position {position} within expression: '{text}'")
    };
    for (text, message, position) in [
        ("null", "Unrecognized value: 'null'", 1),
        ("1 == 1", "Unexpected symbol: '=='", 3),
        ("1e3 2", "Unrecognized value: '1e3'", 1),
        ("\"double\" 2", "Unexpected symbol: '2'", 10),
        ("!eq(1, 1)", "Unrecognized value: '!eq'", 1),
        ("nosuch(1) 2", "Unexpected symbol: '2'", 11),
        ("nosuch(1)", "Unrecognized value: 'nosuch'", 1),
        ("eq(1)", "Unexpected symbol: ')'", 5),
        ("eq(1, 2, 3)", "Unexpected symbol: ','", 8),
        ("in('a')", "Unexpected symbol: ')'", 7),
        ("eq(1,", "Unclosed function: 'eq'", 1),
        ("(true)", "Unexpected symbol: '('", 1),
        ("parameters.obj.", "Expected a property name to follow the dereference operator '.': '.'", 15),
        ("parameters.obj.9num", "Unexpected symbol: '9num'", 16),
        ("parameters.obj.list[]", "Unexpected symbol: ']'", 21),
        ("always", "Expected '(' to follow a function: 'always'", 1),
        ("always(1)", "Unexpected symbol: '1'", 8),
        ("if eq(1, 1)", "Unexpected symbol: 'eq'", 4),
        ("eq(variables.a, x)", "Unrecognized value: 'x'", 17),
    ] {
        assert_eq!(shown(text), at(message, position, text), "{text}");
    }
    assert_eq!(shown("   "), "An expression was expected");
}

#[test]
fn limits() {
    let nested = |levels: usize| format!("{}false{}", "not(".repeat(levels), ")".repeat(levels));
    assert_eq!(shown(&nested(49)), "True");
    assert_eq!(shown(&nested(50)), "Exceeded max expression depth 50");
    assert_eq!(shown(&format!("variables{}", ".a".repeat(5000))), "");
    assert_eq!(shown(&"x".repeat(MAX_LENGTH + 1)), format!("Exceeded max expression length {MAX_LENGTH}"));
    let mut bomb = "'xxxxxxxxxxxxxxxx'".to_owned();
    for _ in 0..12 {
        bomb = format!("format('{{0}}{{0}}{{0}}{{0}}{{0}}{{0}}{{0}}{{0}}', {bomb})");
    }
    assert_eq!(shown(&bomb), "Maximum object size exceeded");
}

#[test]
fn runtime_brackets() {
    assert_eq!(evaluate_runtime("$[ eq(1, 1) ]", &Fixture), Ok(Some(Value::Boolean(true))));
    assert_eq!(evaluate_runtime("a $[ 1 ]", &Fixture), Ok(None));
    assert!(check("counter('a', 1)", &Slot::JobVariable).is_ok());
    assert!(check("counter('a', 1)", &Slot::Condition).is_err());
    assert!(check("resources.x", &Slot::Condition).is_err());
    assert!(check("succeeded('a')", &Slot::StepCondition).is_err());
    let _shared: Arc<Object> = Arc::default();
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in ".{0,60}", pieces in proptest::collection::vec(proptest::sample::select(vec![
        "eq(", "format(", "'a'", "{0}", ")", "[", "]", ".", "*", ",", "parameters", "obj", "1", "-", "'", "..", " ", "é",
    ]), 0..20)) {
        let _ = evaluate(&text, &Fixture);
        let _ = evaluate(&pieces.concat(), &Fixture);
    }
}

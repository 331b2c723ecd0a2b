//! JSON merge patches (RFC 7396) as the difference of two documents.

use serde_json::{Map, Value};

/// The merge patch that turns `before` into `after`: the changed fields, and `null` for each
/// removed field.
///
/// Fields that neither document has stay unchanged. A merge patch cannot set a field to `null`, so
/// `after` must have no `null`.
pub fn between(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else { return after.clone() };
    let removed = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = after.iter().filter_map(|(key, value)| match before.get(key) {
        Some(there) if there == value => None,
        Some(there) => Some((key.clone(), between(there, value))),
        None => Some((key.clone(), value.clone())),
    });
    Value::Object(removed.chain(changed).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::merge;
    use serde_json::json;

    /// The documents are those of RFC 7396, appendix A, as far as the result has no `null`.
    #[test]
    fn the_patch_is_minimal_and_turns_one_document_into_the_other() {
        for (before, after, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"a": "b", "b": "c"}), json!({"b": "c"})),
            (json!({"a": "b"}), json!({}), json!({"a": null})),
            (json!({"a": "b", "b": "c"}), json!({"b": "c"}), json!({"a": null})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d"}}), json!({"a": {"b": "d"}})),
            (json!({"a": {"b": "c", "d": 1}}), json!({"a": {"d": 1}}), json!({"a": {"b": null}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({}), json!({"a": {"bb": {}}}), json!({"a": {"bb": {}}})),
            (json!({"a": {"b": 1}}), json!({"a": {"b": 1}}), json!({})),
            (json!(null), json!({"a": 1}), json!({"a": 1})),
        ] {
            let patch = between(&before, &after);
            assert_eq!(patch, expected, "{before} {after}");
            let mut patched = before.clone();
            merge(&mut patched, &patch);
            assert_eq!(patched, after, "{before}");
        }
    }
}

use proptest::prelude::*;

use super::*;

fn written(text: &str) -> Result<String, String> {
    text.parse::<Selector>().map(|selector| selector.to_string()).map_err(|error| error.to_string())
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
}

/// Each of them was given to `labels.Parse` of `k8s.io/apimachinery`, which wrote the same.
#[test]
fn what_kubernetes_reads() {
    for (text, expected) in [
        ("", ""),
        ("  ", ""),
        ("a=b", "a=b"),
        ("a==b", "a==b"),
        ("a!=b", "a!=b"),
        ("a = b , c", "a=b,c"),
        ("!a", "!a"),
        ("! a", "!a"),
        ("a in (b,c)", "a in (b,c)"),
        ("a in(b)", "a in (b)"),
        ("a notin (c,b,b)", "a notin (b,c)"),
        ("a in ()", "a in ()"),
        ("a in (,)", "a in ()"),
        ("a in (b,)", "a in (,b)"),
        ("a in (,b)", "a in (,b)"),
        ("a in (b,,c)", "a in (,b,c)"),
        ("a=", "a="),
        ("a=,b", "a=,b"),
        ("a!=", "a!="),
        ("a==", "a=="),
        ("in in (in)", "in in (in)"),
        ("notin", "notin"),
        ("in", "in"),
        ("a in (notin,in)", "a in (in,notin)"),
        ("a>1", "a>1"),
        ("a> 1", "a>1"),
        ("a<23", "a<23"),
        ("z,a,m=1", "a,m=1,z"),
        ("a=1,a=2", "a=1,a=2"),
        ("a.com/b", "a.com/b"),
        ("a\tin\n(b)", "a in (b)"),
        ("k8s-app=konnectivity-server", "k8s-app=konnectivity-server"),
    ] {
        assert_eq!(written(text), Ok(expected.to_owned()), "{text:?}");
    }
}

/// The same errors, letter for letter.
#[test]
fn what_kubernetes_refuses() {
    for (text, error) in [
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("=b", "found '=', expected: !, identifier, or 'end of string'"),
        ("(a)", "found '(', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a,,b", "found ',', expected: identifier after ','"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("!a in (b)", "found 'in', expected: ',' or 'end of string'"),
        ("a in (b))", "found ')', expected: ',' or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a!", "unable to parse requirement: found '!', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in", "unable to parse requirement: found '' expected: '('"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("a in (b=c)", "unable to parse requirement: found '=', expected: ',' or ')'"),
        ("a in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
        ("a in (!)", "unable to parse requirement: found '!', expected: ',', ')' or identifier"),
        ("a in ((b)", "unable to parse requirement: found '(', expected: ',', ')' or identifier"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("!!a", "unable to parse requirement: found '!', expected: identifier"),
        ("a=(b)", "unable to parse requirement: found '(', expected: identifier"),
        ("a===b", "unable to parse requirement: found '=', expected: identifier"),
        ("a!==b", "unable to parse requirement: found '=', expected: identifier"),
        ("a=!b", "unable to parse requirement: found '!', expected: identifier"),
        ("a>=1", "unable to parse requirement: found '=', expected: identifier"),
    ] {
        assert_eq!(written(text), Err(error.to_owned()), "{text:?}");
    }
}

#[test]
fn names_and_values_that_labels_cannot_have() {
    let long = "a".repeat(64);
    for text in ["-a", "a-", "A.com/b", "/b", "a/", "a/b/c", "a\u{e9}", "a..b/c", "-a/b", long.as_str()] {
        assert!(matches!(text.parse::<Selector>(), Err(SelectorError::Label { .. })), "{text}");
    }
    for text in ["a=-b", "a=\u{e9}", "a in (b,-)", "a<-1", "a>+1", &format!("a={long}")] {
        assert!(matches!(text.parse::<Selector>(), Err(SelectorError::Value { .. })), "{text}");
    }
    for text in ["a>x", "a>", "a<1.5"] {
        assert!(matches!(text.parse::<Selector>(), Err(SelectorError::NotANumber { .. })), "{text}");
    }
    let most = "a".repeat(63);
    assert_eq!(written(&format!("{most}={most}")), Ok(format!("{most}={most}")));
}

#[test]
fn what_is_selected() {
    let object = labels(&[("app", "konnectivity"), ("zone", ""), ("weight", "7")]);
    for (selector, selected) in [
        ("", true),
        ("app", true),
        ("!app", false),
        ("other", false),
        ("!other", true),
        ("app=konnectivity", true),
        ("app==konnectivity", true),
        ("app=other", false),
        ("zone=", true),
        ("other=", false),
        ("app!=other", true),
        ("app!=konnectivity", false),
        ("other!=x", true),
        ("app in (a,konnectivity)", true),
        ("app in (a,b)", false),
        ("other in ()", false),
        ("app notin (a,b)", true),
        ("app notin (konnectivity)", false),
        ("other notin (x)", true),
        ("weight>6", true),
        ("weight>7", false),
        ("weight<8", true),
        ("app>1", false),
        ("other<8", false),
        ("app,weight<8,!other", true),
        ("app,weight<7,!other", false),
    ] {
        assert_eq!(selector.parse::<Selector>().unwrap().matches(&object), selected, "{selector}");
    }
}

/// Whether a label's value goes with the values of a requirement.
type Rule = fn(Option<&str>, &[String]) -> bool;

/// One requirement as text, and what it says of an object, told without the code under test: its rule, label and values.
fn requirement() -> impl Strategy<Value = (String, Rule, String, Vec<String>)> {
    let within: Rule = |value, list| value.is_some_and(|value| list.iter().any(|other| other == value));
    let without: Rule = |value, list| !value.is_some_and(|value| list.iter().any(|other| other == value));
    let present: Rule = |value, _| value.is_some();
    let absent: Rule = |value, _| value.is_none();
    let values = proptest::collection::vec("[xy]{0,1}", 1..4);
    ("[abc]", values, 0..7).prop_map(move |(label, values, kind)| {
        let first = values[..1].to_vec();
        let list = values.join(" , ");
        match kind {
            0 => (format!("{label} = {}", values[0]), within, label, first),
            1 => (format!("{label}=={}", values[0]), within, label, first),
            2 => (format!("{label}!={}", values[0]), without, label, first),
            3 => (format!("{label} in ({list})"), within, label, values),
            4 => (format!("{label} notin({list})"), without, label, values),
            5 => (label.clone(), present, label, values),
            _ => (format!("! {label}"), absent, label, values),
        }
    })
}

proptest! {
    #[test]
    fn an_object_is_selected_when_all_requirements_say_so(
        requirements in proptest::collection::vec(requirement(), 0..4),
        object in proptest::collection::btree_map("[abc]", "[xy]{0,1}", 0..4),
    ) {
        let text: Vec<_> = requirements.iter().map(|(text, ..)| text.as_str()).collect();
        let expected =
            requirements.iter().all(|(_, rule, label, values)| rule(object.get(label).map(String::as_str), values));
        let selector: Selector = text.join(",").parse().unwrap();
        prop_assert_eq!(selector.matches(&object), expected);
        let again: Selector = selector.to_string().parse().unwrap();
        prop_assert_eq!(again, selector);
    }

    #[test]
    fn nothing_panics(text in "[a-b1=!(),<> \\-\u{e9}]{0,20}") {
        let _ = text.parse::<Selector>();
    }
}

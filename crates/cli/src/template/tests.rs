use serde_json::json;

use super::Template;

#[test]
fn what_is_written_and_what_comes_out() {
    let value = json!({
        "ID": "abc", "Size": 12, "Names": ["a:1", "b:2"], "Created": null,
        "Config": { "Env": ["A=1", "B=2"], "Cmd": null, "Labels": { "who": "me", "org.x": "y" } },
    });
    let rows = [
        ("{{.ID}}", "abc"),
        ("{{ .ID }}:{{.Size}}", "abc:12"),
        ("plain", "plain"),
        ("{{.ID}}\\t{{.Size}}\\n", "abc\t12\n"),
        ("{{json .Names}}", "[\"a:1\",\"b:2\"]"),
        ("{{.Names}}", "[a:1 b:2]"),
        ("{{.Config.Env}}", "[A=1 B=2]"),
        ("{{.Config.Labels}}", "map[org.x:y who:me]"),
        ("{{.Config.Labels.who}}", "me"),
        ("{{.Config.Labels.nobody}}", "<no value>"),
        ("{{index .Config.Labels \"org.x\"}}", "y"),
        ("{{index .Config.Labels \"nobody\"}}|", "|"),
        ("{{index .Names 1}}", "b:2"),
        ("{{join .Names \", \"}}", "a:1, b:2"),
        ("{{join .Config.Cmd \" \"}}", ""),
        ("{{len .Names}} {{len .Config.Cmd}}", "2 0"),
        ("{{.ID | upper | json}}", "\"ABC\""),
        ("{{upper .ID}}{{lower \"X\"}}", "ABCx"),
        ("{{\"}}\"}}{{`\"`}}", "}}\""),
        ("{{.Created}}", "<nil>"),
        ("a  {{- .ID -}}  b", "aabcb"),
        ("{{/* nothing */}}x", "x"),
        (
            "{{.}}x",
            "map[Config:map[Cmd:<nil> Env:[A=1 B=2] Labels:map[org.x:y who:me]] Created:<nil> ID:abc Names:[a:1 b:2] Size:12]x",
        ),
    ];
    for (text, expected) in rows {
        let template = Template::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(template.render(&value), Ok(expected.to_owned()), "{text}");
    }
    assert_eq!(Template::parse("json").unwrap().render(&json!({"a": 1})), Ok("{\"a\":1}".to_owned()));
}

#[test]
fn what_is_refused_and_why() {
    let value = json!({ "ID": "abc", "Names": ["a"] });
    let rows = [
        ("{{.Id}}", "there is no field .Id; there are .ID, .Names"),
        ("{{.ID.x}}", "ID has no fields"),
        ("{{range .Names}}{{.}}{{end}}", "range is not supported"),
        ("{{if .ID}}x{{end}}", "if is not supported"),
        ("{{$x := .ID}}", "$x is not supported"),
        ("{{(index .Names 0)}}", "is not supported"),
        ("{{ID}}", "there is no function \"ID\""),
        ("{{json}}", "json wants a field"),
        ("{{json ID}}", "\"ID\" is neither a field (.ID)"),
        ("{{.ID", "{{ without }}"),
        ("{{}}", "write a field"),
        ("{{.ID .Names}}", "write a field"),
        ("{{.ID | .Names}}", "write a field"),
        ("{{index .Names 7}}", "there are only 1 of it"),
        ("{{index .Names \"x\"}}", "write index .List 0"),
        ("{{join .ID \",\"}}", "write join .List"),
        ("{{len .ID .ID}}", "write len .Field"),
        ("{{.a..b}}", "is no field"),
        ("{{\"x}}", "{{ without }}"),
        ("table", "`table` wants columns"),
    ];
    for (text, expected) in rows {
        let error = Template::parse(text).and_then(|template| template.render(&value)).expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_table_has_a_heading() {
    let template = Template::parse("table {{.ID}}\\t{{.CreatedSince}}\\t{{json .Size}}").unwrap();
    assert!(template.is_table());
    assert_eq!(template.heading(), "ID\tCREATED SINCE\tSIZE");
    assert!(!Template::parse("tableau {{.ID}}").unwrap().is_table());
}

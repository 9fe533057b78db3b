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
        ("{{range .Names}}<{{.}}>{{end}}", "<a:1><b:2>"),
        ("{{range .Names}}{{println .}}{{end}}", "a:1\nb:2\n"),
        ("{{range .Names}}{{.}} of {{$.ID}} {{end}}", "a:1 of abc b:2 of abc "),
        ("{{range .Config.Cmd}}{{.}}{{else}}none{{end}}", "none"),
        ("{{range .Config.Labels}}{{.}},{{end}}", "y,me,"),
        ("{{range .Config.Env}}{{range split . \"=\"}}{{.}};{{end}}{{end}}", "A;1;B;2;"),
        ("{{if .Config.Cmd}}cmd{{else if .ID}}id{{else}}none{{end}}", "id"),
        ("{{if eq .ID \"x\" \"abc\"}}same{{end}}", "same"),
        ("{{if ne .Size 12}}other{{else}}12{{end}}", "12"),
        ("{{if and .ID .Config.Cmd}}both{{end}}{{if or .ID .Config.Cmd}}one{{end}}", "one"),
        ("{{if not .Config.Cmd}}no{{end}}", "no"),
        ("{{with .Config}}{{len .Env}}{{end}}{{with .Created}}x{{else}}y{{end}}", "2y"),
        ("{{- range .Names -}} {{.}} {{- end -}}", "a:1b:2"),
        ("{{slice .ID 0 2}}{{title .ID}}{{print .Size .Size}}", "abAbc12 12"),
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
        ("{{range .Names}}{{.}}", "{{range .Names}} has no {{end}}"),
        ("{{range .ID}}{{.}}{{end}}", "abc is no list"),
        ("{{range $i, $n := .Names}}{{end}}", "$i, is not supported"),
        ("{{if}}x{{end}}", "if wants a field"),
        ("{{if .ID}}x{{else}}y{{else}}z{{end}}", "two else"),
        ("{{range .Names}}x{{else range .ID}}y{{end}}", "write else"),
        ("{{end}}", "without if"),
        ("{{break}}", "break is not supported"),
        ("{{slice .ID 0 99}}", "has no such part"),
        ("{{eq .ID}}", "write eq .Field"),
        ("{{if eq (len .ID) 3}}x{{end}}", "is not supported"),
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

use super::*;

#[test]
fn a_host_is_insecure_by_name_or_by_network() {
    let daemon = DaemonJson::parse(
        r#"{"registry-mirrors": ["https://m.example"], "debug": true, "features": {"x": 1},
            "insecure-registries": ["lan.example:5000", "lan.example", "10.1.0.0/16", "fd00::/8", "192.0.2.7", "0.0.0.0/33"]}"#,
    )
    .unwrap();
    let cases = [
        ("lan.example:5000", Some("lan.example:5000")),
        ("lan.example", Some("lan.example")),
        ("lan.example:5001", None),
        ("10.1.2.3:5000", Some("10.1.0.0/16")),
        ("10.1.2.3", Some("10.1.0.0/16")),
        ("10.2.2.3:5000", None),
        ("[fd00::1]:5000", Some("fd00::/8")),
        ("[fe00::1]:5000", None),
        ("192.0.2.7", Some("192.0.2.7")),
        ("192.0.2.7:80", None),
        ("8.8.8.8", None),
    ];
    for (host, expected) in cases {
        assert_eq!(daemon.insecure(host), expected, "{host}");
    }
    assert_eq!(insecure(&["0.0.0.0/0".to_owned()], "8.8.8.8:1"), Some("0.0.0.0/0"));
    assert_eq!(DaemonJson::parse("").unwrap(), DaemonJson::default());
    assert!(DaemonJson::parse(r#"{"registry-mirrors": "x"}"#).is_err());
}

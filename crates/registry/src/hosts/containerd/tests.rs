use super::*;

fn parse(text: &str) -> Result<HostsToml, String> {
    HostsToml::parse(text, Path::new("/c/docker.io/hosts.toml"))
}

#[test]
fn hosts_are_in_the_order_of_the_file() {
    let file = parse(
        r#"
server = "https://registry-1.docker.io"
ca = "own.pem"

[host."https://z.example"]
  capabilities = ["pull", "resolve"]
  ca = "/etc/certs/z.pem"
[host."http://m.example:5000/proxy/v2"]
  capabilities = ["pull"]
  override_path = true
  skip_verify = true
  ca = ["a.pem", "/b.pem"]
  client = [["/c.cert", "/c.key"], ["/d.pem"]]
  dial_timeout = "1s"
  [host."http://m.example:5000/proxy/v2".header]
    X-One = ["1", "2"]
    authorization = "Basic x"
[host."a.example"]
  client = "both.pem"
"#,
    )
    .unwrap();
    let paths = |files: &[&str]| files.iter().map(PathBuf::from).collect::<Vec<_>>();
    let server = file.server.unwrap();
    assert_eq!(server.url.as_str(), "https://registry-1.docker.io/");
    assert_eq!(server.ca, paths(&["/c/docker.io/own.pem"]));
    assert_eq!(server.from, "/c/docker.io/hosts.toml:2");
    let [z, m, a] = &file.hosts[..] else { panic!("{:?}", file.hosts) };
    assert_eq!((z.url.as_str(), z.resolve, z.pull, z.skip_verify), ("https://z.example/", true, true, false));
    assert_eq!((z.ca.clone(), z.from.as_str()), (paths(&["/etc/certs/z.pem"]), "/c/docker.io/hosts.toml:5"));
    assert_eq!((m.url.path(), m.override_path, m.resolve, m.pull), ("/proxy/v2", true, false, true));
    assert!(m.skip_verify);
    assert_eq!(m.ca, paths(&["/c/docker.io/a.pem", "/b.pem"]));
    let pair = |certificate: &str, key: &str| (PathBuf::from(certificate), PathBuf::from(key));
    assert_eq!(m.client, [pair("/c.cert", "/c.key"), pair("/d.pem", "/d.pem")]);
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(m.headers, [header("x-one", "1"), header("x-one", "2"), header("authorization", "Basic x")]);
    assert_eq!((a.url.as_str(), a.resolve, a.pull), ("https://a.example/", true, true));
    assert_eq!(a.client, [pair("/c/docker.io/both.pem", "/c/docker.io/both.pem")]);
    assert_eq!(parse("").unwrap(), HostsToml { hosts: Vec::new(), server: None });
}

#[test]
fn what_is_wrong_is_said() {
    let cases = [
        ("[host.\"ftp://x\"]\n", "\"ftp://x\" is not http://HOST[:PORT] or https://HOST[:PORT]"),
        ("server = 'https://user:secret@h'\n", "\"h\" is not http://HOST[:PORT] or https://HOST[:PORT]"),
        ("[host.x]\ncapabilities = ['fly']\n", "x: capability \"fly\" is unknown"),
        ("[host.x]\nclient = [['a', 'b', 'c']]\n", "x: a client is a certificate and a key"),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text).unwrap_err(), expected, "{text}");
    }
    assert!(parse("\nserver = 5\n").unwrap_err().starts_with("line "), "{:?}", parse("\nserver = 5\n"));
}

#[test]
fn a_host_has_several_directories() {
    let names = |host| directories(Path::new("/c"), host);
    let paths = |files: &[&str]| files.iter().map(|file| Path::new("/c").join(file)).collect::<Vec<_>>();
    assert_eq!(names("h:5000"), paths(&["h_5000_", "h:5000", "_default"]));
    assert_eq!(names("docker.io"), paths(&["docker.io", "_default"]));
}

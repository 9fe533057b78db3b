//! Logging in, and what becomes of it: against a strict token service and Debian's docker-registry.

use std::path::{Path, PathBuf};

use kiln_core::{Cancel, Digest, ImageRef, Platform};
use kiln_oci::MediaTypes;
use kiln_registry::{CredentialSource, Credentials, RegistryClient, RegistryConfig, RegistryError};
use kiln_testkit::debian_registry::{DebianRegistry, Doors};
use kiln_testkit::image::TestImage;
use kiln_testkit::registry::{Access, FakeRegistry, Fault};

fn client(file: &Path) -> RegistryClient {
    let sources = vec![CredentialSource::File(file.to_owned())];
    let config = RegistryConfig {
        credentials: Credentials { sources, ..Credentials::default() },
        ..RegistryConfig::default()
    };
    RegistryClient::new(config, Cancel::new()).unwrap()
}

fn pull(file: &Path, image: &str) -> Result<Digest, RegistryError> {
    let (image, platform): (ImageRef, Platform) = (image.parse().unwrap(), "linux/amd64".parse().unwrap());
    client(file).resolve(&image, &platform, &|_: &Digest| None).map(|image| image.manifest.digest)
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    (directory, file)
}

#[test]
fn a_login_is_tried_kept_used_and_forgotten() {
    let registry = FakeRegistry::start();
    let image = TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("a", "1")]]);
    registry.put("team/app", "1", &image);
    let name = format!("{}/team/app:1", registry.host());
    let pair = ("me".to_owned(), "hunter2".to_owned());
    for access in [
        Access::Basic(pair.0.clone(), pair.1.clone()),
        Access::Token(Some(pair.clone())),
        Access::Identity {
            user: pair.0.clone(),
            password: pair.1.clone(),
            identity: "identity-secret".to_owned(),
        },
    ] {
        registry.access(access.clone());
        let (_directory, file) = place();
        let error = client(&file).login(&registry.host(), "me", "wrong-hunter2", &file).unwrap_err();
        assert!(matches!(error, RegistryError::Login { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2") && !file.exists(), "{error}");
        let kept = client(&file).login(&registry.host(), "me", "hunter2", &file).unwrap();
        assert_eq!((kept.place, kept.plain, kept.behind), (file.display().to_string(), true, None));
        let text = std::fs::read_to_string(&file).unwrap();
        // A password is not kept where there is something better.
        let identity = matches!(access, Access::Identity { .. });
        assert_eq!(text.contains("bWU6aHVudGVyMg=="), !identity, "{text}");
        assert_eq!(text.contains("identity-secret"), identity, "{text}");
        assert_eq!(client(&file).account(&registry.host()).unwrap().unwrap().user.as_deref(), Some("me"));
        assert_eq!(pull(&file, &name).unwrap(), image.image.manifest.digest);
        assert_eq!(client(&file).logout(Some(&registry.host()), &file).unwrap().len(), 1);
        assert_eq!(client(&file).account(&registry.host()).unwrap(), None);
        assert!(matches!(pull(&file, &name).unwrap_err(), RegistryError::Unauthorized { .. }));
    }
}

#[test]
fn an_identity_token_goes_to_its_token_service_alone() {
    let (registry, elsewhere) = (FakeRegistry::start(), FakeRegistry::start());
    registry.put("a", "1", &TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("a", "1")]]));
    let name = format!("{}/a:1", registry.host());
    let identity = "identity-secret".to_owned();
    registry.access(Access::Identity { user: "me".to_owned(), password: "p".to_owned(), identity });
    let (_directory, file) = place();
    let write = |token: &str| {
        let text = format!(r#"{{"auths": {{"{}": {{"identitytoken": "{token}"}}}}}}"#, registry.host());
        std::fs::write(&file, text).unwrap();
    };
    write("identity-secret");
    pull(&file, &name).unwrap();
    assert!(registry.lines().iter().any(|line| line == "POST /token"));
    // Where it is sent on to, it is not sent.
    let location = vec![format!("Location: http://{}/token", elsewhere.host())];
    registry.fault("POST /token", 1, Fault::Status { status: 307, headers: location, body: String::new() });
    let error = pull(&file, &name).unwrap_err();
    assert!(matches!(error.root(), RegistryError::Status { status: 307, .. }), "{error}");
    assert_eq!(elsewhere.lines(), [] as [String; 0]);
    write("old-secret");
    let error = pull(&file, &name).unwrap_err();
    let said = error.to_string();
    assert!(
        matches!(error, RegistryError::Unauthorized { .. }) && said.contains("invalid refresh token"),
        "{said}"
    );
    assert!(said.contains("sent were the credentials of auths") && !said.contains("secret"), "{said}");
}

#[test]
fn a_token_for_the_registry_is_sent_as_it_is() {
    let registry = FakeRegistry::start();
    registry.put("a", "1", &TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("a", "1")]]));
    registry.access(Access::Token(None));
    let (_directory, file) = place();
    // The fake's first token is this one, for whoever asks first.
    pull(&file, &format!("{}/a:1", registry.host())).unwrap();
    registry.lines();
    let token = r#"{"registrytoken": "secret-token-1"}"#;
    std::fs::write(&file, format!(r#"{{"auths": {{"{}": {token}}}}}"#, registry.host())).unwrap();
    pull(&file, &format!("{}/a:1", registry.host())).unwrap();
    assert!(!registry.lines().iter().any(|line| line.contains("/token")));
}

#[test]
fn debians_registry_takes_what_is_kept() {
    let doors = Doors { user: Some(("me", "hunter2")), ..Doors::default() };
    let Some(registry) = DebianRegistry::behind(doors) else { return };
    let host = format!("127.0.0.1:{}", registry.port());
    let (_directory, file) = place();
    let error = client(&file).login(&host, "me", "wrong", &file).unwrap_err();
    assert!(error.to_string().contains("does not take this name and password"), "{error}");
    client(&file).login(&host, "me", "hunter2", &file).unwrap();
    let error = pull(&file, &format!("{host}/a:1")).unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
}

#[test]
fn what_is_no_registry_is_refused() {
    let (_directory, file) = place();
    for name in ["", "UPPER case", "ghcr.io/owner", "me@ghcr.io", "python"] {
        let error = client(&file).login(name, "u", "p", &file).unwrap_err();
        assert!(matches!(error, RegistryError::Host { .. }), "{name}: {error}");
    }
}

#[test]
fn a_trace_tells_each_request_and_no_secret() {
    let (registry, mirror) = (FakeRegistry::start(), FakeRegistry::start());
    let image = TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("a", "1")]]);
    registry.put("a", "1", &image);
    registry.access(Access::Token(Some(("me".to_owned(), "hunter2".to_owned()))));
    let (_directory, file) = place();
    let auth = r#"{"username": "me", "password": "hunter2"}"#;
    std::fs::write(&file, format!(r#"{{"auths": {{"{}": {auth}}}}}"#, registry.host())).unwrap();
    let config = RegistryConfig {
        mirrors: [(registry.host(), vec![format!("http://{}", mirror.host())])].into(),
        credentials: Credentials { sources: vec![CredentialSource::File(file)], ..Credentials::default() },
        ..RegistryConfig::default()
    };
    let client = RegistryClient::new(config, Cancel::new()).unwrap();
    let location = format!("Location: http://{}/signed/v2?secret=hunter2", registry.host());
    let headers = vec![location, "RateLimit-Remaining: 7;w=21600".to_owned()];
    mirror.fault("HEAD", 1, Fault::Status { status: 302, headers, body: String::new() });
    let name = format!("{}/a:1", registry.host());
    let trace = client.trace(&name.parse().unwrap()).unwrap();
    let text = format!("{trace:?}");
    assert!(!text.contains("hunter2") && !text.contains("secret"), "{text}");
    let [first, second] = &trace.servers[..] else { panic!("{trace:#?}") };
    assert!(first.mirror && !first.delivers && first.error.is_some(), "{first:#?}");
    assert_eq!(first.decided_by, ["kiln's configuration"]);
    assert_eq!(first.requests[0].redirect, Some(format!("http://{}/signed/v2", registry.host())));
    assert_eq!(first.requests[0].limits, [("ratelimit-remaining".to_owned(), "7;w=21600".to_owned())]);
    assert!(second.delivers && second.error.is_none(), "{second:#?}");
    let lines: Vec<_> = second.requests.iter().map(|asked| (asked.method.as_str(), asked.status)).collect();
    assert_eq!(lines, [("HEAD", Some(401)), ("TOKEN", Some(200)), ("HEAD", Some(200))]);
    let challenge =
        format!("Bearer realm=http://{}/token service=fake scope=repository:a:pull", registry.host());
    assert_eq!(second.requests[0].challenge.as_ref(), Some(&challenge));
    assert!(second.credentials.as_ref().is_some_and(|source| source.starts_with("auths ")), "{second:#?}");
    assert_eq!(trace.digest, Some(image.image.manifest.digest.to_string()));
}

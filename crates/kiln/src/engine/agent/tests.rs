use super::*;

/// An agent that answers each message with its type and what was in it, and remembers them.
struct FakeAgent {
    dir: tempfile::TempDir,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl FakeAgent {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("sock")).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, log) = (stream.unwrap(), Arc::clone(&log));
                std::thread::spawn(move || {
                    while let Ok(Some(message)) = read_message(&stream) {
                        log.lock().unwrap().push(message.clone());
                        if (&stream).write_all(&message).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { dir, seen }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("sock")
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 1).unwrap();
    [&length.to_be_bytes()[..], &[kind], body].concat()
}

fn proxy(agent: &FakeAgent) -> (tempfile::TempDir, AgentProxy) {
    let dir = tempfile::tempdir().unwrap();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let proxy = AgentProxy::start(dir.path(), &Backend::Agent(agent.path()), 0o600, (uid, gid)).unwrap();
    (dir, proxy)
}

fn ask(client: &UnixStream, request: &[u8]) -> Vec<u8> {
    let mut client = client;
    client.write_all(request).unwrap();
    read_message(client).unwrap().unwrap()
}

#[test]
fn keys_are_listed_and_used_and_nothing_else() {
    let agent = FakeAgent::start();
    let (_dir, proxy) = proxy(&agent);
    let client = UnixStream::connect(proxy.path()).unwrap();
    let list = message(REQUEST_IDENTITIES, b"");
    let sign = message(SIGN_REQUEST, &vec![7; LONGEST - 1]);
    assert_eq!(ask(&client, &list), list);
    assert_eq!(ask(&client, &sign), sign);
    // Add, remove one, remove all, smart card, lock, unlock, add with constraints, extension, none of them, nothing.
    for kind in [17, 18, 19, 20, 22, 23, 25, 27, 200] {
        assert_eq!(ask(&client, &message(kind, b"body")), FAILURE, "{kind}");
    }
    assert_eq!(ask(&client, &[0, 0, 0, 0]), FAILURE);
    assert_eq!(*agent.seen.lock().unwrap(), [list, sign]);
}

#[test]
fn a_message_without_end_ends_the_connection() {
    let agent = FakeAgent::start();
    let (_dir, proxy) = proxy(&agent);
    let mut client = UnixStream::connect(proxy.path()).unwrap();
    client.write_all(&u32::MAX.to_be_bytes()).unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn connections_end_with_the_proxy() {
    let agent = FakeAgent::start();
    let (_dir, proxy) = proxy(&agent);
    let path = proxy.path().to_owned();
    let idle: Vec<UnixStream> = (0..5).map(|_| UnixStream::connect(&path).unwrap()).collect();
    assert_eq!(ask(&idle[4], &message(REQUEST_IDENTITIES, b"")).len(), 5);
    drop(proxy);
    for mut client in &idle {
        assert!(matches!(client.read(&mut [0; 8]), Ok(0) | Err(_)));
    }
    assert!(UnixStream::connect(&path).is_err());
}

#[test]
fn paths_may_be_longer_than_an_address() {
    let agent = FakeAgent::start();
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(200));
    std::fs::create_dir(&deep).unwrap();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let proxy = AgentProxy::start(&deep, &Backend::Agent(agent.path()), 0o640, (uid, gid)).unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(proxy.path()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o640);
    let client = connect(proxy.path()).unwrap();
    assert_eq!(ask(&client, &message(REQUEST_IDENTITIES, b"")).len(), 5);
}

#[test]
fn an_agent_that_is_gone_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let error =
        AgentProxy::start(dir.path(), &Backend::Agent(dir.path().join("none")), 0o600, (0, 0)).err().unwrap();
    assert!(error.to_string().contains("connect to the ssh agent"), "{error}");
}

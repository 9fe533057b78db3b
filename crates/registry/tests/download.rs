//! Plain downloads from a server that is as bad as needed.

use std::time::Duration;

use kiln_core::Cancel;
use kiln_registry::{
    Answer, DownloadConfig, DownloadError, Downloader, HostCredentials, Part, Timeouts, Validators, Wanted,
};
use kiln_testkit::registry::{FakeRegistry, Fault, WebFile};

const DATE: &str = "Wed, 21 Oct 2015 07:28:00 GMT";

/// What came, and how often it began.
#[derive(Debug, Default, PartialEq, Eq)]
struct Got {
    bytes: Vec<u8>,
    begins: Vec<Option<u64>>,
}

fn plain() -> Downloader {
    Downloader::new(DownloadConfig::default())
}

fn with_secrets(secrets: &[(&str, &str)]) -> Downloader {
    let secrets = secrets.iter().map(|(name, value)| (*name, value.as_bytes()));
    Downloader::new(DownloadConfig {
        credentials: HostCredentials::of_secrets(secrets),
        ..DownloadConfig::default()
    })
}

fn get_if(from: &Downloader, url: &str, known: Option<&Validators>) -> Result<(Answer, Got), DownloadError> {
    let mut got = Got::default();
    let answer = from.get(&Wanted { url, known }, &Cancel::new(), &mut |part| {
        match part {
            Part::Begin(size) => {
                got.begins.push(size);
                got.bytes.clear();
            }
            Part::Bytes(bytes) => got.bytes.extend_from_slice(bytes),
        }
        Ok::<_, DownloadError>(())
    })?;
    Ok((answer, got))
}

fn get(from: &Downloader, url: &str) -> Result<Vec<u8>, DownloadError> {
    let (answer, got) = get_if(from, url, None)?;
    assert!(matches!(answer, Answer::Complete(_)), "{answer:?}");
    Ok(got.bytes)
}

/// Bytes that do not repeat, so that a piece at the wrong place is seen.
fn big(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

fn status(status: u16, headers: &[&str]) -> Fault {
    let headers = headers.iter().map(|line| (*line).to_owned()).collect();
    Fault::Status { status, headers, body: String::new() }
}

#[test]
fn an_unchanged_file_is_not_sent_again() {
    let server = FakeRegistry::start();
    let file = |bytes: &str| WebFile::new(bytes);
    let cases = [
        ("/etag", file("one").etag("\"1\""), file("two").etag("\"2\"")),
        ("/weak", file("one").etag("W/\"1\""), file("two").etag("W/\"2\"")),
        (
            "/date",
            file("one").last_modified(DATE),
            file("two").last_modified("Wed, 21 Oct 2015 07:28:01 GMT"),
        ),
        (
            "/both",
            file("one").etag("\"1\"").last_modified(DATE),
            file("two").etag("\"2\"").last_modified(DATE),
        ),
        // Some send tags and never compare them.
        ("/lazy", file("one").etag("\"1\"").never_compared(), file("two").etag("\"2\"").never_compared()),
    ];
    for (path, one, two) in cases {
        let url = server.url(path);
        server.put_file(path, one);
        let (first, got) = get_if(&plain(), &url, None).unwrap();
        assert_eq!(got, Got { bytes: b"one".to_vec(), begins: vec![Some(3)] }, "{path}");
        let Answer::Complete(known) = first else { panic!("{path}: {first:?}") };
        let (second, got) = get_if(&plain(), &url, Some(&known)).unwrap();
        assert_eq!((second, got), (Answer::Unchanged, Got::default()), "{path}");
        server.put_file(path, two);
        let (third, got) = get_if(&plain(), &url, Some(&known)).unwrap();
        assert_eq!(got.bytes, b"two", "{path}");
        assert!(matches!(third, Answer::Complete(new) if new != known), "{path}");
        assert_eq!(server.lines().len(), 3, "{path}");
    }
}

#[test]
fn without_validators_nothing_is_asked() {
    let server = FakeRegistry::start();
    server.put_file("/a", WebFile::new("one"));
    let (answer, got) = get_if(&plain(), &server.url("/a"), Some(&Validators::default())).unwrap();
    assert_eq!((answer, got.bytes.as_slice()), (Answer::Complete(Validators::default()), &b"one"[..]));
    assert_eq!(server.seen()[0].conditions, [] as [String; 0]);
    // Dates are for people who wrote the file.
    let date = |text: &str| Validators { etag: None, last_modified: Some(text.to_owned()) }.modified();
    assert_eq!((date(DATE), date("yesterday")), (Some(1_445_412_480), None));
}

#[test]
fn goes_on_where_the_connection_broke() {
    let server = FakeRegistry::start();
    let bytes = big(3 << 20);
    for (path, file) in [
        ("/etag", WebFile::new(bytes.clone()).etag("\"1\"")),
        ("/date", WebFile::new(bytes.clone()).last_modified(DATE)),
    ] {
        server.put_file(path, file);
        server.fault(path, 1, Fault::Cut(2 << 20));
        server.fault(path, 1, Fault::Cut(1000));
        let (_, got) = get_if(&plain(), &server.url(path), None).unwrap();
        assert!(got.bytes == bytes && got.begins == [Some(3 << 20)], "{path}: {:?}", got.begins);
        let seen = server.seen();
        assert_eq!(seen.len(), 3, "{seen:#?}");
        assert!(seen[1].range.is_some() && seen[2].range.is_some() && seen[1].range != seen[2].range);
    }
}

#[test]
fn begins_anew_where_it_cannot_go_on() {
    let server = FakeRegistry::start();
    let bytes = big(1 << 20);
    let weak = WebFile::new(bytes.clone()).etag("W/\"1\"");
    for (path, file, fault) in [
        ("/nothing", WebFile::new(bytes.clone()), None),
        ("/weak", weak, None),
        ("/no-ranges", WebFile::new(bytes.clone()).etag("\"1\""), Some(Fault::IgnoreRange)),
        ("/refused", WebFile::new(bytes.clone()).etag("\"1\""), Some(status(416, &[]))),
    ] {
        server.put_file(path, file);
        server.fault(path, 1, Fault::Cut(100_000));
        if let Some(fault) = fault {
            server.fault(path, 1, fault);
        }
        let (_, got) = get_if(&plain(), &server.url(path), None).unwrap();
        assert!(got.bytes == bytes, "{path}: {} bytes", got.bytes.len());
        assert_eq!(got.begins.len(), 2, "{path}");
    }
    // Another file in the meantime: none of the old bytes stay.
    server.put_file("/old", WebFile::new(big(1 << 20)).etag("\"1\""));
    server.put_file("/new", WebFile::new([7; 1000]).etag("\"2\""));
    server.fault("/new", 1, status(302, &["Location: /old"]));
    server.fault("/old", 1, Fault::Cut(100_000));
    server.seen();
    let (_, got) = get_if(&plain(), &server.url("/new"), None).unwrap();
    assert_eq!(got, Got { bytes: vec![7; 1000], begins: vec![Some(1 << 20), Some(1000)] });
    let ranges: Vec<_> = server.seen().into_iter().map(|seen| (seen.line, seen.range)).collect();
    let line = |path: &str| format!("GET {path}");
    let rest = Some("bytes=100000-".to_owned());
    assert_eq!(ranges, [(line("/new"), None), (line("/old"), None), (line("/new"), rest)]);
}

#[test]
fn a_server_that_breaks_off_each_time_is_given_up() {
    let server = FakeRegistry::start();
    server.put_file("/a", WebFile::new(big(3 << 20)));
    server.fault("/a", 100, Fault::Cut(2 << 20));
    let error = get(&plain(), &server.url("/a")).unwrap_err();
    assert!(
        matches!(&error, DownloadError::Interrupted { received, size: Some(size), .. } if *received <= 2 << 20 && *size == 3 << 20),
        "{error}"
    );
    assert!(server.lines().len() <= 6);
}

#[test]
fn waits_and_asks_again() {
    let server = FakeRegistry::start();
    server.put_file("/a", WebFile::new("one"));
    for fault in [
        status(503, &[]),
        status(429, &["Retry-After: 0"]),
        status(429, &[&format!("Retry-After: {DATE}"), &format!("Date: {DATE}")]),
    ] {
        server.fault("/a", 2, fault);
        assert_eq!(get(&plain(), &server.url("/a")).unwrap(), b"one");
        assert_eq!(server.lines().len(), 3);
    }
    // Longer than is worth it.
    let later = "Wed, 21 Oct 2015 08:28:00 GMT";
    server.fault("/a", 1, status(429, &[&format!("Retry-After: {later}"), &format!("Date: {DATE}")]));
    let error = get(&plain(), &server.url("/a")).unwrap_err();
    let (url, host) = (server.url("/a"), server.host());
    assert_eq!(
        error.to_string(),
        format!("{url} cannot be fetched: {host} limits the rate of requests; it answers again in 3600 s")
    );
    assert_eq!(server.lines().len(), 1);
}

#[test]
fn says_what_is_wrong_without_saying_secrets() {
    let server = FakeRegistry::start();
    server.put_file("/closed", WebFile::new("one").for_whom("Bearer t0k3n"));
    server.put_file("/loop", WebFile::elsewhere("/loop?x=t0k3n"));
    server.put_file("/away", WebFile::elsewhere("ftp://me:t0k3n@example.org/"));
    server.put_file("/nowhere", WebFile::new(""));
    let at = |path: &str| server.url(path);
    let other = with_secrets(&[("HTTP_AUTH_TOKEN_127.0.0.1", "0th3r")]);
    let cases = [
        (plain(), at("/none?sig=t0k3n"), format!("{}?... is not there: the server answers 404", at("/none"))),
        (
            plain(),
            at("/closed"),
            format!("{} is denied (401): no credentials are given for 127.0.0.1", at("/closed")),
        ),
        (other, at("/closed"), format!("{} is denied (401): it wants other credentials", at("/closed"))),
        (plain(), at("/loop"), format!("{} redirects more than 10 times", at("/loop"))),
        (
            plain(),
            at("/away"),
            format!("{} redirects to ftp://example.org/, which is no http address", at("/away")),
        ),
        (
            plain(),
            server.url("/x").replace("http://", "http://me:t0k3n@"),
            format!(
                "\"{}\" cannot be fetched: a name or password in it would stay in the image's history",
                at("/x")
            ),
        ),
    ];
    for (from, url, message) in cases {
        let error = get(&from, &url).unwrap_err();
        assert_eq!(error.to_string(), message, "{url}");
        assert!(!format!("{error:?}{from:?}").contains("t0k3n"), "{error:?}");
    }
    server.fault("/nowhere", 1, status(302, &[]));
    let error = get(&plain(), &at("/nowhere")).unwrap_err();
    assert_eq!(error.to_string(), format!("{} redirects without saying where to", at("/nowhere")));
    server.fault("/nowhere", 1, status(304, &[]));
    assert!(matches!(get(&plain(), &at("/nowhere")), Err(DownloadError::Server { .. })));
}

#[test]
fn credentials_go_to_their_host_only() {
    // Two ports are two servers; the credentials name the host alone, and are not sent to where it redirects.
    let (server, other) = (FakeRegistry::start(), FakeRegistry::start());
    server.put_file("/a", WebFile::new("one").for_whom("Bearer t0k3n"));
    server.put_file("/here", WebFile::elsewhere("/a").for_whom("Bearer t0k3n"));
    server.put_file("/there", WebFile::elsewhere(other.url("/b")).for_whom("Bearer t0k3n"));
    server.put_file("/closed", WebFile::elsewhere(other.url("/c")).for_whom("Bearer t0k3n"));
    other.put_file("/b", WebFile::new("two"));
    other.put_file("/c", WebFile::new("three").for_whom("Bearer t0k3n"));
    let from = with_secrets(&[("HTTP_AUTH_TOKEN_127.0.0.1", "t0k3n\n")]);
    assert_eq!(get(&from, &server.url("/a")).unwrap(), b"one");
    assert_eq!(get(&from, &server.url("/here")).unwrap(), b"one");
    assert_eq!(get(&from, &server.url("/there")).unwrap(), b"two");
    assert!(other.seen().iter().all(|seen| !seen.authorized));
    let error = get(&from, &server.url("/closed")).unwrap_err();
    let expected = format!(
        "{} is denied (401): it redirects to {}, which gets no credentials",
        server.url("/closed"),
        other.host()
    );
    assert_eq!(error.to_string(), expected);
    let header = with_secrets(&[("HTTP_AUTH_HEADER_127.0.0.1", "Bearer t0k3n")]);
    assert_eq!(get(&header, &server.url("/a")).unwrap(), b"one");
}

#[test]
fn one_that_says_nothing_is_given_up() {
    let server = FakeRegistry::start();
    server.put_file("/a", WebFile::new(big(100_000)).etag("\"1\""));
    server.fault("/a", 10, Fault::Stall);
    let timeouts = Timeouts { stall: Duration::from_millis(100), ..Timeouts::default() };
    let from = Downloader::new(DownloadConfig { timeouts, ..DownloadConfig::default() });
    let error = get(&from, &server.url("/a")).unwrap_err();
    assert!(error.to_string().contains("sent nothing for"), "{error}");
    assert_eq!(server.lines().len(), 2);
}

#[test]
fn ends_when_it_is_cancelled() {
    let server = FakeRegistry::start();
    for (path, fault) in [("/endless", Fault::Endless), ("/silent", Fault::Stall)] {
        server.put_file(path, WebFile::new("one"));
        server.fault(path, 1, fault);
        let (cancel, url) = (Cancel::new(), server.url(path));
        let mut got = 0_u64;
        let answer = plain().get(&Wanted { url: &url, known: None }, &cancel, &mut |part| {
            if let Part::Bytes(bytes) = part {
                got += bytes.len() as u64;
            }
            if got > 1 << 20 || path == "/silent" {
                cancel.cancel();
            }
            Ok::<_, DownloadError>(())
        });
        assert_eq!(answer, Err(DownloadError::Cancelled), "{path}");
    }
    // Before it begins.
    let cancel = Cancel::new();
    cancel.cancel();
    server.lines();
    let never = plain().get(&Wanted { url: &server.url("/endless"), known: None }, &cancel, &mut |_| {
        Err(DownloadError::Cancelled)
    });
    assert_eq!(never, Err(DownloadError::Cancelled));
    assert_eq!(server.lines(), [] as [String; 0]);
}

#[test]
fn ends_when_nobody_takes_it() {
    #[derive(Debug, PartialEq)]
    enum Failed {
        Full,
        Download(DownloadError),
    }
    impl From<DownloadError> for Failed {
        fn from(error: DownloadError) -> Self {
            Self::Download(error)
        }
    }
    let server = FakeRegistry::start();
    server.put_file("/a", WebFile::new("one"));
    server.fault("/a", 1, Fault::Endless);
    let url = server.url("/a");
    let full = plain().get(&Wanted { url: &url, known: None }, &Cancel::new(), &mut |part| match part {
        Part::Begin(_) => Ok(()),
        Part::Bytes(_) => Err(Failed::Full),
    });
    assert_eq!(full, Err(Failed::Full));
}

#[test]
fn several_at_once_share_one() {
    let server = FakeRegistry::start();
    let bytes = big(100_000);
    for number in 0..20 {
        server.put_file(&format!("/{number}"), WebFile::new([&bytes[number..], b"x"].concat()));
    }
    let from = plain();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let (from, server, bytes) = (&from, &server, &bytes);
            scope.spawn(move || {
                let got = get(from, &server.url(&format!("/{number}"))).unwrap();
                assert_eq!(got, [&bytes[number..], b"x"].concat());
            });
        }
    });
    assert_eq!(server.lines().len(), 20);
}

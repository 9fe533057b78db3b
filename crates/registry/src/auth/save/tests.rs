use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::super::testing::helper;
use super::*;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("new/docker/config.json")
    }

    fn write(&self, text: &str) {
        fs::create_dir_all(self.file().parent().unwrap()).unwrap();
        fs::write(self.file(), text).unwrap();
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn credentials(&self) -> Credentials {
        let programs = vec![self.0.path().to_owned(), "/usr/bin".into(), "/bin".into()];
        Credentials { programs, ..Credentials::default() }
    }

    fn store(&self, host: &str, credential: &Credential) -> Result<String, RegistryError> {
        store(&self.credentials(), &self.file(), host, credential)
    }

    fn erase(&self, host: Option<&str>) -> Vec<String> {
        erase(&self.credentials(), &self.file(), host).unwrap()
    }

    /// A helper that keeps what it is told in a file for each server.
    fn helper(&self, name: &str) {
        let kept = self.0.path().join(format!("kept-{name}"));
        fs::create_dir(&kept).unwrap();
        let script = format!(
            r#"cd {}; text=$(cat); case $1 in
            store) echo "$text" > "$(echo "$text" | sed 's/.*ServerURL":"//; s/".*//; s,/,_,g')" ;;
            get) cat "$(echo "$text" | tr / _)" 2>/dev/null || {{ echo credentials not found in native keychain; exit 1; }} ;;
            erase) rm "$(echo "$text" | tr / _)" ;;
            esac"#,
            kept.display()
        );
        helper(self.0.path(), name, &script);
    }

    fn kept(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.path().join(format!("kept-{name}"))).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn u_p() -> Credential {
    Credential::of_login("u", "p")
}

#[test]
fn a_new_file_is_its_owners() {
    let home = Home::new();
    assert_eq!(home.store("ghcr.io", &u_p()).unwrap(), home.file().display().to_string());
    assert_eq!(home.text(), "{\n\t\"auths\": {\n\t\t\"ghcr.io\": {\n\t\t\t\"auth\": \"dTpw\"\n\t\t}\n\t}\n}");
    assert_eq!(home.file().metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(home.file().parent().unwrap().metadata().unwrap().mode() & 0o777, 0o700);
    home.store("docker.io", &Credential { identity: Some("t".to_owned()), ..u_p() }).unwrap();
    assert!(home.text().contains(r#""https://index.docker.io/v1/""#), "{}", home.text());
    assert!(
        home.text().contains(r#""identitytoken": "t""#) && home.text().contains("\"dTo=\""),
        "{}",
        home.text()
    );
    assert_eq!(home.erase(Some("docker.io")).len(), 1);
    assert!(!home.text().contains("docker.io"), "{}", home.text());
    assert_eq!(home.erase(Some("docker.io")), [] as [String; 0]);
}

#[test]
fn everything_else_stays_as_it_is_and_where_it_is() {
    let home = Home::new();
    let other = r#"{"zz": [1, -2, 2.5, true, null, {"b": "é\\n", "a": {}}], "auths": {"z.example": {"auth": "eDp5"}, "https://GHCR": {},
        "https://ghcr.io/v1/": {"auth": "eDp5", "email": "e"}, "a.example/team": {"auth": "eDp5"}}, "HttpHeaders": {"X": "1"}, "auths2": 1}"#;
    home.write(other);
    fs::set_permissions(home.file(), fs::Permissions::from_mode(0o644)).unwrap();
    home.store("ghcr.io", &u_p()).unwrap();
    let expected = r#"{"zz": [1, -2, 2.5, true, null, {"b": "é\\n", "a": {}}], "auths": {"z.example": {"auth": "eDp5"}, "https://GHCR": {},
        "a.example/team": {"auth": "eDp5"}, "ghcr.io": {"auth": "dTpw"}}, "HttpHeaders": {"X": "1"}, "auths2": 1}"#;
    let plain = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(plain(&home.text()), plain(expected));
    assert_eq!(home.file().metadata().unwrap().mode() & 0o777, 0o600);
    // A link is followed and stays one.
    let link = home.0.path().join("link.json");
    std::os::unix::fs::symlink(home.file(), &link).unwrap();
    erase(&home.credentials(), &link, Some("ghcr.io")).unwrap();
    assert!(link.is_symlink() && !home.text().contains("ghcr.io"));
    let all = home.erase(None);
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(plain(&home.text()).contains(r#""auths":{},"#), "{}", home.text());
}

#[test]
fn a_program_keeps_what_the_file_says_it_keeps() {
    let home = Home::new();
    home.helper("one");
    home.helper("all");
    home.write(
        r#"{"credsStore": "all", "credHelpers": {"ghcr.io": "one"}, "auths": {"ghcr.io": {"auth": "eDp5"}}}"#,
    );
    assert_eq!(home.store("ghcr.io", &u_p()).unwrap(), "docker-credential-one");
    assert_eq!(home.store("docker.io", &u_p()).unwrap(), "docker-credential-all");
    assert_eq!(
        (home.kept("one"), home.kept("all")),
        (vec!["ghcr.io".into()], vec!["https:__index.docker.io_v1_".into()])
    );
    let text = home.text();
    assert!(!text.contains("\"auth\"") && text.contains(r#""ghcr.io": {}"#), "{text}");
    assert_eq!(home.erase(Some("ghcr.io")).len(), 2);
    assert_eq!((home.kept("one").len(), home.kept("all").len()), (0, 1));
    assert_eq!(home.erase(None).len(), 2);
    assert_eq!(home.kept("all").len(), 0);
    // One that is missing keeps nothing, and the file stays as it was.
    home.write(r#"{"credsStore": "gone"}"#);
    let error = home.store("ghcr.io", &u_p()).unwrap_err();
    assert!(error.to_string().contains("docker-credential-gone"), "{error}");
    assert_eq!(home.text(), r#"{"credsStore": "gone"}"#);
}

#[test]
fn a_bad_file_stays_as_it_is() {
    for text in ["{", r#"{"auths": 5}"#, "[]", r#"{"auths": {"h": {"auth": "!"}}}"#] {
        let home = Home::new();
        home.write(text);
        home.store("ghcr.io", &u_p()).unwrap_err();
        assert_eq!(home.text(), text);
    }
}

#[test]
fn logins_at_once_are_all_kept() {
    let home = Home::new();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let home = &home;
            scope.spawn(move || home.store(&format!("h{number}.example"), &u_p()).unwrap());
        }
    });
    let text = home.text();
    assert!((0..8).all(|number| text.contains(&format!("h{number}.example"))), "{text}");
    let left: Vec<_> = fs::read_dir(home.file().parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

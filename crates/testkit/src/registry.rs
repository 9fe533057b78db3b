//! A registry in this process, on 127.0.0.1, that serves plain files too: strict about what it is asked, and as faulty as a
//! test wants it.

mod access;
mod answer;
mod cut;
mod file;
mod upload;
mod wire;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use kiln_core::Digest;
use kiln_oci::Document;

use crate::image::TestImage;

/// A running registry. When it is dropped it panics if a client did what the protocol does not allow.
#[derive(Debug)]
pub struct FakeRegistry {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Another answer.
    Status {
        /// HTTP status.
        status: u16,
        /// Header lines, such as `Retry-After: 0`.
        headers: Vec<String>,
        /// What it says.
        body: String,
    },
    /// The connection closes after so many bytes of the body.
    Cut(usize),
    /// Only so many bytes are announced and sent.
    Shorten(usize),
    /// The last byte is another one.
    Corrupt,
    /// The body is not sent, and the connection stays open.
    Stall,
    /// Only so many bytes of the body are sent, and the connection stays open.
    Hang(usize),
    /// The range is ignored: everything is sent.
    IgnoreRange,
    /// No Docker-Content-Digest.
    NoDigest,
    /// The body grows without end.
    Endless,
    /// The connection closes after so many bytes of the request's body, which the registry has then.
    Drop(usize),
    /// The same, and an upload that was going on is void: so does Debian's registry.
    DropAll(usize),
    /// All is done as asked, and the connection closes without an answer.
    NoAnswer,
    /// Nothing is sent, not even a head, and the connection stays open.
    Mute,
    /// The body is not sent before so many requests have come in all; of an answer without one, the head.
    Await(usize),
}

/// Who may pull.
#[derive(Debug, Clone, Default)]
pub enum Access {
    /// Everybody; whoever sends credentials anyway is wrong here.
    #[default]
    Open,
    /// Whoever shows a token from `/token`, which asks for name and password if given.
    Token(Option<(String, String)>),
    /// Name and password.
    Basic(String, String),
    /// Whoever shows a token from `/token`. That gives who logs in with this name and password this identity token, which it
    /// takes from then on.
    Identity {
        /// Name.
        user: String,
        /// Password.
        password: String,
        /// The identity token.
        identity: String,
    },
    /// Whoever shows a token, and tokens are for reading only, whatever was asked for.
    ReadOnly,
}

/// What this registry does in its own way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manners {
    /// It takes blobs from its other repositories.
    pub mounts: bool,
    /// It takes uploads in parts.
    pub chunks: bool,
    /// What a part must have at least, and is said to have to, bytes.
    pub least: Option<usize>,
    /// What a request may bring at most, bytes.
    pub most: Option<usize>,
    /// Where uploads go, `http://127.0.0.1:port`, if it is another server. That one takes all that it is sent.
    pub elsewhere: Option<String>,
    /// It lists what is about a manifest, so many on a page.
    pub page: Option<usize>,
}

impl Default for Manners {
    fn default() -> Self {
        Self { mounts: true, chunks: true, least: None, most: None, elsewhere: None, page: None }
    }
}

pub use cut::Direction;
pub use file::WebFile;

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `GET /v2/a/blobs/sha256:...`
    pub line: String,
    /// `Range`, if any.
    pub range: Option<String>,
    /// Whether there was an `Authorization`.
    pub authorized: bool,
    /// `If-None-Match: ...` and its like, sorted.
    pub conditions: Vec<String>,
    /// `Content-Range`, if any.
    pub content_range: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// A request came.
    came: Condvar,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// By repository and digest.
    blobs: BTreeMap<(String, Digest), Vec<u8>>,
    /// By repository and tag or digest: media type, bytes.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    /// By path, without query.
    files: BTreeMap<String, WebFile>,
    /// Text that must be in the request line or its range, how often still, what.
    faults: Vec<(String, usize, Fault)>,
    access: Access,
    manners: Manners,
    /// What each is good for: repositories, and whether for writing too.
    tokens: BTreeMap<String, Vec<(String, bool)>>,
    issued: usize,
    /// What a token service says of a token's life, as JSON fields.
    life: Option<String>,
    /// Requests in all.
    count: usize,
    traffic: cut::Traffic,
    /// By their ids.
    uploads: BTreeMap<String, upload::Session>,
    begun: usize,
    seen: Vec<Seen>,
    violations: Vec<String>,
}

impl FakeRegistry {
    /// Starts one, empty, on a free port.
    ///
    /// # Panics
    /// There is no port or thread.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        thread::spawn(move || serve(&listener, address, &serving));
        Self { address, shared }
    }

    /// Returns `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Stores an image under a tag and its digest.
    pub fn put(&self, repository: &str, tag: &str, image: &TestImage) {
        self.put_manifest(repository, &[tag], &image.image.manifest);
        for bytes in image.blobs.values() {
            self.put_blob(repository, bytes);
        }
    }

    /// Stores a manifest or index under tags and its digest.
    pub fn put_manifest(&self, repository: &str, tags: &[&str], document: &Document) {
        let mut state = self.shared.state();
        let digest = document.digest.to_string();
        for reference in tags.iter().copied().chain([digest.as_str()]) {
            let key = (repository.to_owned(), reference.to_owned());
            state.manifests.insert(key, (document.media_type.clone(), document.bytes.clone()));
        }
    }

    /// Stores a blob.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.shared.state().blobs.insert((repository.to_owned(), digest), bytes.to_vec());
        digest
    }

    /// Serves a file at a path (`/a/b`), instead of the one that is there.
    pub fn put_file(&self, path: &str, file: WebFile) {
        self.shared.state().files.insert(path.to_owned(), file);
    }

    /// Returns `http://127.0.0.1:port/path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Makes the next `times` requests go wrong in which `on` is part of the first line and the range, if any (`GET /v2/...
    /// bytes=0-9`). Faults are taken in the order they were given. Of requests that come at once, chance decides which one
    /// meets a fault meant for all of them: say the range where it matters.
    pub fn fault(&self, on: impl Into<String>, times: usize, fault: Fault) {
        self.shared.state().faults.push((on.into(), times, fault));
    }

    /// From now on nothing goes wrong any more.
    pub fn heal(&self) {
        self.shared.state().faults.clear();
    }

    /// Says who may pull.
    pub fn access(&self, access: Access) {
        self.shared.state().access = access;
    }

    /// Says how it behaves.
    pub fn behave(&self, manners: Manners) {
        self.shared.state().manners = manners;
    }

    /// Returns a blob's bytes if the repository has it.
    pub fn blob(&self, repository: &str, digest: Digest) -> Option<Vec<u8>> {
        self.shared.state().blobs.get(&(repository.to_owned(), digest)).cloned()
    }

    /// Loses the blobs of a repository that have at least so many bytes, as one does that takes what is in use for garbage.
    pub fn lose_blobs(&self, repository: &str, least: usize) {
        self.shared.state().blobs.retain(|(owner, _), bytes| owner != repository || bytes.len() < least);
    }

    /// Returns the media type and bytes of a manifest by its tag or digest.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Vec<u8>)> {
        self.shared.state().manifests.get(&(repository.to_owned(), reference.to_owned())).cloned()
    }

    /// Returns how many uploads were begun and neither ended nor given up.
    pub fn uploads(&self) -> usize {
        self.shared.state().uploads.len()
    }

    /// Makes all tokens void.
    pub fn forget_tokens(&self) {
        self.shared.state().tokens.clear();
    }

    /// Makes a token service say something else of the life of tokens: `"expires_in":-1`.
    pub fn token_life(&self, fields: &str) {
        self.shared.state().life = Some(fields.to_owned());
    }

    /// Closes the connection on which this byte comes or goes, counted from now over all connections; `times` times, each
    /// counted anew.
    pub fn cut(&self, direction: Direction, byte: u64, times: usize) {
        self.shared.state().traffic = cut::Traffic::until(direction, byte, times);
    }

    /// Returns how many bytes came and went since [`cut`](Self::cut) was last called, or ever.
    pub fn traffic(&self) -> (u64, u64) {
        self.shared.state().traffic.counted()
    }

    /// Returns what was asked since the last time.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.state().seen)
    }

    /// Returns the first lines of what was asked since the last time.
    pub fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; if that fails it is gone already.
        let _ = TcpStream::connect(self.address);
        let violations = self.shared.state().violations.clone();
        if !thread::panicking() {
            assert!(violations.is_empty(), "the client broke the protocol: {violations:#?}");
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(listener: &TcpListener, address: SocketAddr, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(connection) = connection else { continue };
        let shared = shared.clone();
        // A client that goes away in the middle is no failure of the registry.
        thread::spawn(move || drop(wire::connection(connection, address, &shared)));
    }
}

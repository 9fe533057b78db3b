//! Which Linux this is, where what it can do cannot be tried.

/// Returns the first two numbers of its version.
pub(crate) fn version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let mut numbers =
        uname.release().to_str().unwrap_or("").split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next())
}

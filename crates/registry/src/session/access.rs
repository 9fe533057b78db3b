//! What a token is asked for.
//! <https://distribution.github.io/distribution/spec/auth/scope/>

/// What one does with a repository. Reading it is always part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Access {
    /// Writing too.
    pub(crate) push: bool,
    /// Reading another repository of the same registry too: the one that a blob is mounted from.
    pub(crate) from: Option<String>,
}

impl Access {
    /// Whether who was granted this may do `wanted`.
    pub(crate) fn covers(&self, wanted: &Self) -> bool {
        (self.push || !wanted.push) && (wanted.from.is_none() || self.from == wanted.from)
    }

    /// Returns the scopes to ask a token service for. `challenge` is what the registry named when it refused: taken as it
    /// is for reading, as not all registries call their repositories what their paths do. A refused read names `pull`
    /// only, so for a push it is widened: one token is good for all requests of a push.
    pub(crate) fn scopes(&self, repository: &str, challenge: Option<&str>) -> Vec<String> {
        let own = format!("repository:{repository}:");
        let mut scopes: Vec<String> =
            challenge.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
        if !self.push {
            if scopes.is_empty() {
                scopes.push(own + "pull");
            }
            return scopes;
        }
        scopes.retain(|scope| !scope.starts_with(&own));
        scopes.insert(0, own + "pull,push");
        if let Some(from) = &self.from {
            let from = format!("repository:{from}:pull");
            if !scopes.contains(&from) {
                scopes.push(from);
            }
        }
        scopes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(push: bool, from: Option<&str>) -> Access {
        Access { push, from: from.map(str::to_owned) }
    }

    #[test]
    fn scopes_say_what_is_done() {
        let (read, push, mount) = (access(false, None), access(true, None), access(true, Some("c")));
        let cases: [(&Access, Option<&str>, &[&str]); 9] = [
            (&read, None, &["repository:a/b:pull"]),
            (&read, Some("repository:a/b:pull"), &["repository:a/b:pull"]),
            (&read, Some("aws"), &["aws"]),
            (&push, None, &["repository:a/b:pull,push"]),
            (&push, Some("repository:a/b:pull"), &["repository:a/b:pull,push"]),
            (&push, Some("repository:a/b:push,pull"), &["repository:a/b:pull,push"]),
            (&push, Some("aws"), &["repository:a/b:pull,push", "aws"]),
            (&mount, None, &["repository:a/b:pull,push", "repository:c:pull"]),
            (
                &mount,
                Some("repository:a/b:pull,push repository:c:pull"),
                &["repository:a/b:pull,push", "repository:c:pull"],
            ),
        ];
        for (access, challenge, expected) in cases {
            assert_eq!(access.scopes("a/b", challenge), expected, "{access:?} {challenge:?}");
        }
    }

    #[test]
    fn a_grant_covers_what_is_less() {
        let (read, push) = (access(false, None), access(true, None));
        let (mount, other) = (access(true, Some("c")), access(true, Some("d")));
        for (granted, wanted, expected) in [
            (&read, &read, true),
            (&read, &push, false),
            (&push, &read, true),
            (&push, &mount, false),
            (&mount, &push, true),
            (&mount, &mount, true),
            (&mount, &other, false),
        ] {
            assert_eq!(granted.covers(wanted), expected, "{granted:?} {wanted:?}");
        }
    }
}

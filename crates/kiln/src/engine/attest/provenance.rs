//! Where a result comes from: SLSA provenance, version 1 (<https://slsa.dev/spec/v1.1/provenance>), with the parameters that
//! BuildKit defines (<https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md>).

use std::collections::BTreeMap;

use base64::Engine as _;
use kiln_core::{ImageRef, Op, Platform};
use kiln_sbom::{Purl, rfc3339};
use serde_json::{Map, Value, json};

use super::statement::purl;
use crate::engine::bases::Meant;
use crate::engine::build::Build;
use crate::request::{ContextSource, NamedSource, ProvenanceMode, ProvenanceOptions};

/// Whose definitions the parameters follow.
const BUILD_TYPE: &str = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";

/// Who built it, where nobody says so. It is no address: kiln is a program on somebody's machine and no service.
const BUILDER: &str = "urn:kiln:local";

/// When a build began and ended, and what it is called. None where a SOURCE_DATE_EPOCH asks for the same statement again.
#[derive(Debug, Clone)]
pub(super) struct Invocation {
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) started: u64,
    /// Seconds since 1970.
    pub(super) finished: u64,
}

/// Makes the predicate.
pub(super) fn predicate(
    build: &Build<'_>,
    options: &ProvenanceOptions,
    invocation: Option<&Invocation>,
) -> Value {
    let max = options.mode == ProvenanceMode::Max;
    let ops = || build.plan.graph.iter().map(|(_, step)| &step.op);
    let runs_or_reads = ops().any(|op| matches!(op, Op::Run(_) | Op::Context(_)));
    let mut metadata = json!({
        "buildkit_completeness": {"request": max, "resolvedDependencies": !runs_or_reads},
        "buildkit_metadata": {},
    });
    if max {
        let data = base64::engine::general_purpose::STANDARD.encode(&build.definition.text);
        let info = json!({"filename": dockerfile(build), "language": "Dockerfile", "data": data});
        metadata["buildkit_metadata"] = json!({"source": {"infos": [info]}});
    }
    if options.reproducible {
        metadata["buildkit_reproducible"] = json!(true);
    }
    if let Some(Invocation { id, started, finished }) = invocation {
        metadata["invocationId"] = json!(id);
        metadata["startedOn"] = json!(rfc3339(*started));
        metadata["finishedOn"] = json!(rfc3339(*finished));
    }
    json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"configSource": config_source(build), "request": request(build, max)},
            "internalParameters": {"builderPlatform": Platform::host().to_string()},
            "resolvedDependencies": dependencies(build),
        },
        "runDetails": {
            "builder": {
                "id": options.builder_id.as_deref().unwrap_or(BUILDER),
                "version": {"kiln": env!("CARGO_PKG_VERSION")},
            },
            "metadata": metadata,
        },
    })
}

/// The Dockerfile's name. Where it is on this machine is nobody's business.
fn dockerfile(build: &Build<'_>) -> String {
    let file = std::path::Path::new(&build.definition.file);
    file.file_name().map_or_else(|| "Dockerfile".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Where the Dockerfile comes from, if that is no file of this machine.
fn config_source(build: &Build<'_>) -> Value {
    let mut source = json!({"path": dockerfile(build)});
    let context = match &build.request.context {
        context @ (ContextSource::Git(_) | ContextSource::Http(_)) => context.to_string(),
        _ => return source,
    };
    let materials = build.remotes.materials();
    if let Some((uri, algorithm, hex)) = materials.into_iter().find(|(uri, ..)| context.starts_with(uri)) {
        source["uri"] = json!(uri);
        source["digest"] = json!({algorithm: hex});
    }
    source
}

/// What was asked for, in the names that BuildKit's frontend has for it.
fn request(build: &Build<'_>, max: bool) -> Value {
    let request = build.request;
    let mut args: BTreeMap<String, String> = BTreeMap::new();
    let mut put = |name: String, value: String| args.insert(name, value);
    if let Some(target) = &request.target {
        put("target".to_owned(), target.clone());
    }
    if !request.platforms.is_empty() {
        let platforms: Vec<String> = request.platforms.iter().map(ToString::to_string).collect();
        put("platform".to_owned(), platforms.join(","));
    }
    match (request.no_cache, &request.no_cache_filter[..]) {
        (true, _) => drop(put("no-cache".to_owned(), String::new())),
        (false, []) => {}
        (false, stages) => drop(put("no-cache".to_owned(), stages.join(","))),
    }
    let mut locals = Vec::new();
    match &request.context {
        context @ (ContextSource::Git(_) | ContextSource::Http(_)) => {
            put("context".to_owned(), context.to_string());
        }
        ContextSource::Empty => {}
        _ => locals.extend(["context", "dockerfile"].map(str::to_owned)),
    }
    for (name, source) in &request.build_contexts {
        let value = match source {
            NamedSource::Image(image) => format!("docker-image://{image}"),
            NamedSource::Files(context @ (ContextSource::Git(_) | ContextSource::Http(_))) => {
                context.to_string()
            }
            NamedSource::OciLayout { digest, .. } => {
                digest.map_or_else(|| "oci-layout://".to_owned(), |digest| format!("oci-layout://@{digest}"))
            }
            NamedSource::Files(_) => {
                locals.push(name.clone());
                format!("local:{name}")
            }
        };
        put(format!("context:{name}"), value);
    }
    let mut out = Map::new();
    if max {
        for (name, value) in &request.build_args {
            put(format!("build-arg:{name}"), value.clone());
        }
        for (name, value) in &request.labels {
            put(format!("label:{name}"), value.clone());
        }
        let ids = |ids: Vec<&String>| -> Value {
            ids.into_iter().map(|id| json!({"id": id, "optional": true})).collect()
        };
        if !request.secrets.is_empty() {
            out.insert("secrets".to_owned(), ids(request.secrets.keys().collect()));
        }
        if !request.ssh.is_empty() {
            out.insert("ssh".to_owned(), ids(request.ssh.keys().collect()));
        }
    }
    out.insert("frontend".to_owned(), json!("dockerfile.v0"));
    out.insert("args".to_owned(), json!(args));
    if !locals.is_empty() {
        let local = |name: &String| json!({"name": name});
        out.insert("locals".to_owned(), locals.iter().map(local).collect());
    }
    Value::Object(out)
}

/// Images, files and commits that the result was made from, by digest.
fn dependencies(build: &Build<'_>) -> Value {
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    let mut used = Vec::new();
    for (_, step) in build.plan.graph.iter() {
        match &step.op {
            Op::Image(image) => used.push(image.manifest),
            // One that was never needed here, because its bytes are known by their checksum.
            Op::Http(http) => {
                if let Some(checksum) = http.checksum {
                    found.insert(kiln_registry::redacted(&http.url), json!({"sha256": checksum.hex()}));
                }
            }
            _ => {}
        }
    }
    for meant in build.bases.meant().into_iter().filter(|meant| used.contains(&meant.manifest)) {
        found.insert(image_uri(&meant), json!({"sha256": meant.root.hex()}));
    }
    for (uri, algorithm, hex) in build.remotes.materials() {
        found.insert(uri, json!({algorithm: hex}));
    }
    found.into_iter().map(|(uri, digest)| json!({"uri": uri, "digest": digest})).collect()
}

fn image_uri(meant: &Meant) -> String {
    match meant.name.parse::<ImageRef>() {
        Ok(name) if !meant.layout => purl(&name, &meant.platform),
        _ => Purl::new("oci")
            .name(&meant.name)
            .version(&meant.root.to_string())
            .qualifier("platform", Some(&meant.platform.to_string()))
            .to_string(),
    }
}

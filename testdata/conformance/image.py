"""Images as plain values: the configuration's fields and the flattened tree."""

import gzip
import hashlib
import io
import json
import tarfile

# Fields that say how an image is run. `Env` and the like of an empty value are as good as absent.
FIELDS = ("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels", "ExposedPorts", "Volumes", "StopSignal", "Shell", "OnBuild",
          "Healthcheck")


def read(archive):
    """Reads a docker archive or an OCI archive."""
    config, layers = open_archive(archive)
    return {"config": fields(config), "tree": flatten(layers)}


def content(archive, path):
    """Returns the content of a file of the topmost layer that has it."""
    _, layers = open_archive(archive)
    for layer in reversed(layers):
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            if path in tar.getnames():
                return tar.extractfile(path).read()
    raise KeyError(path)


def open_archive(archive):
    """The configuration, and the layers as they are stored."""
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
        member = lambda name: tar.extractfile(name).read()
        if "index.json" in names and "manifest.json" not in names:
            blob = lambda digest: member("blobs/" + digest.replace(":", "/"))
            descriptor = json.loads(member("index.json"))["manifests"][0]
            manifest = json.loads(blob(descriptor["digest"]))
            config = json.loads(blob(manifest["config"]["digest"]))
            layers = [blob(layer["digest"]) for layer in manifest["layers"]]
        else:
            manifest = json.loads(member("manifest.json"))[0]
            config = json.loads(member(manifest["Config"]))
            layers = [layer_of(tar, name) for name in manifest["Layers"]]
    return config, layers


def layer_of(tar, name):
    # Equal layers are links to one another in old archives.
    info = tar.getmember(name)
    while info.issym():
        info = tar.getmember(str((name.rsplit("/", 1)[0] + "/" + info.linkname).replace("/../", "/").split("/", 1)[-1]))
    return tar.extractfile(info).read()


def fields(config):
    inner = config.get("config") or {}
    out = {name: inner[name] for name in FIELDS if inner.get(name)}
    # Buildah signs its images; that is no matter of the Dockerfile.
    labels = {name: value for name, value in out.pop("Labels", {}).items() if name != "io.buildah.version"}
    if labels:
        out["Labels"] = labels
    for name in ("architecture", "os", "author"):
        if config.get(name):
            out[name] = config[name]
    return out


def flatten(layers):
    tree = {}
    for layer in layers:
        data = gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer
        apply(tree, data)
    return {path: {k: v for k, v in entry.items() if k != "data"} for path, entry in tree.items()}


def apply(tree, data):
    """https://github.com/opencontainers/image-spec/blob/main/layer.md"""
    below = dict(tree)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            path = "/" + "/".join(part for part in info.name.split("/") if part not in ("", "."))
            parent, _, name = path.rpartition("/")
            if name == ".wh..wh..opq":
                for other in [p for p in below if p.startswith(parent + "/")]:
                    if tree.get(other) is below[other]:
                        del tree[other]
                continue
            if name.startswith(".wh."):
                remove(tree, parent + "/" + name[4:])
                continue
            entry = describe(tar, info, tree)
            if entry["type"] != "dir":
                remove(tree, path)
            elif tree.get(path, {}).get("type", "dir") != "dir":
                remove(tree, path)
            tree[path] = entry


def remove(tree, path):
    for other in [p for p in tree if p == path or p.startswith(path + "/")]:
        del tree[other]


def describe(tar, info, tree):
    if info.islnk():
        target = "/" + info.linkname.lstrip("./")
        return dict(tree.get(target, {"type": "dangling hard link", "target": target}))
    kind = ("dir" if info.isdir() else "file" if info.isreg() else "link" if info.issym() else "fifo" if info.isfifo()
            else "char" if info.ischr() else "block" if info.isblk() else "other")
    entry = {"type": kind, "owner": f"{info.uid}:{info.gid}"}
    if kind != "link":
        entry["mode"] = f"{info.mode & 0o7777:04o}"
    if kind == "file":
        entry["content"] = hashlib.sha256(tar.extractfile(info).read()).hexdigest()[:16]
    if kind == "link":
        entry["target"] = info.linkname
    if kind in ("char", "block"):
        entry["device"] = f"{info.devmajor}:{info.devminor}"
    xattrs = {key[len("SCHILY.xattr."):]: value for key, value in info.pax_headers.items() if key.startswith("SCHILY.xattr.")}
    if xattrs:
        entry["xattrs"] = xattrs
    return entry


def differences(mine, theirs):
    """What differs, by path or `config.FIELD`: both values."""
    found = {}
    for field in sorted(mine["config"].keys() | theirs["config"].keys()):
        ours, other = mine["config"].get(field), theirs["config"].get(field)
        if ours != other:
            found[f"config.{field}"] = (json.dumps(ours), json.dumps(other))
    for path in sorted(mine["tree"].keys() | theirs["tree"].keys()):
        ours, other = mine["tree"].get(path), theirs["tree"].get(path)
        # An archive need not say what the root directory is.
        if path == "/" or ours == other:
            continue
        if ours and other:
            for key in sorted(ours.keys() | other.keys()):
                if ours.get(key) != other.get(key):
                    found[f"{path} {key}"] = (ours.get(key), other.get(key))
        else:
            found[path] = (describe_short(ours), describe_short(other))
    return found


def describe_short(entry):
    return "nothing" if entry is None else " ".join(str(value) for value in entry.values())

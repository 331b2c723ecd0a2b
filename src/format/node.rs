//! One entry of a directory: restic's node, and its exact JSON.
//!
//! [`Node::write_json`] writes the fields in restic's order and leaves out what restic leaves out,
//! so that the same metadata gives the same tree id. Reading accepts any order, unknown fields, and
//! the `null`s that older programs wrote.

use super::base64_bytes;
use super::content::{Content, Json, write_ids};
use super::text::{quote, unquote, write_json_string};
use super::time::Time;
use super::{FormatError, Result};
use crate::id::Id;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::io::Write;

/// The type of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeType {
    File,
    Dir,
    Symlink,
    /// A block device.
    Dev,
    CharDev,
    Fifo,
    Socket,
    Irregular,
    /// Written by a newer program; kept as unknown so that the rest of the tree stays readable.
    #[serde(other)]
    Unknown,
}

impl NodeType {
    pub fn name(self) -> &'static str {
        match self {
            NodeType::File => "file",
            NodeType::Dir => "dir",
            NodeType::Symlink => "symlink",
            NodeType::Dev => "dev",
            NodeType::CharDev => "chardev",
            NodeType::Fifo => "fifo",
            NodeType::Socket => "socket",
            NodeType::Irregular => "irregular",
            NodeType::Unknown => "unknown",
        }
    }
}

/// Bits of [`Node::mode`] above the permissions: Go's `os.FileMode`.
pub mod mode {
    pub const DIR: u32 = 1 << 31;
    pub const SYMLINK: u32 = 1 << 27;
    pub const DEVICE: u32 = 1 << 26;
    pub const NAMED_PIPE: u32 = 1 << 25;
    pub const SOCKET: u32 = 1 << 24;
    pub const SETUID: u32 = 1 << 23;
    pub const SETGID: u32 = 1 << 22;
    /// Set together with [`DEVICE`].
    pub const CHAR_DEVICE: u32 = 1 << 21;
    pub const STICKY: u32 = 1 << 20;
    pub const IRREGULAR: u32 = 1 << 19;

    const TYPES: [(u32, u32); 6] = [
        (0o040_000, DIR),
        (0o120_000, SYMLINK),
        (0o060_000, DEVICE),
        (0o020_000, DEVICE | CHAR_DEVICE),
        (0o010_000, NAMED_PIPE),
        (0o140_000, SOCKET),
    ];
    const SPECIAL: [(u32, u32); 3] = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];

    /// From `st_mode`.
    pub fn from_unix(unix: u32) -> u32 {
        let ty = TYPES.iter().find(|(bits, _)| unix & 0o170_000 == *bits).map_or(0, |(_, go)| *go);
        let irregular = if ty == 0 && unix & 0o170_000 != 0o100_000 { IRREGULAR } else { 0 };
        SPECIAL
            .iter()
            .filter(|(bits, _)| unix & bits != 0)
            .fold((unix & 0o777) | ty | irregular, |go, (_, bit)| go | bit)
    }

    /// Permission, setuid, setgid and sticky bits as `chmod` takes them.
    pub fn permissions(go: u32) -> u32 {
        SPECIAL.iter().filter(|(_, bit)| go & bit != 0).fold(go & 0o777, |unix, (bits, _)| unix | bits)
    }
}

/// One extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Xattr {
    /// The name that the kernel uses. Bytes that are not UTF-8 do not survive: restic's JSON
    /// replaces each of them.
    #[serde(deserialize_with = "text_bytes")]
    pub name: Vec<u8>,
    #[serde(with = "base64_bytes", default)]
    pub value: Vec<u8>,
}

fn text_bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<u8>, D::Error> {
    String::deserialize(deserializer).map(String::into_bytes)
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Raw bytes, not quoted; one path component.
    pub name: Vec<u8>,
    pub ty: NodeType,
    /// Go's `os.FileMode`, see [`mode`].
    pub mode: u32,
    pub mtime: Time,
    pub atime: Time,
    pub ctime: Time,
    pub uid: u32,
    pub gid: u32,
    pub user: String,
    pub group: String,
    pub inode: u64,
    /// `st_dev`, or 0 where it is left out.
    pub device_id: u64,
    /// Bytes, of regular files only.
    pub size: u64,
    pub links: u64,
    /// Raw bytes of a symlink's target.
    pub link_target: Vec<u8>,
    pub xattrs: Vec<Xattr>,
    /// Windows attributes, kept as they are.
    pub generic_attributes: Option<Box<str>>,
    /// `st_rdev` of a device node.
    pub device: u64,
    /// The data blobs of a file, in order; `None` for all else.
    pub content: Option<Content>,
    /// The tree of a directory.
    pub subtree: Option<Id>,
    pub error: String,
}

impl Node {
    /// A node with nothing but a name and a type.
    pub fn new(name: impl Into<Vec<u8>>, ty: NodeType) -> Node {
        Node {
            name: name.into(),
            ty,
            mode: 0,
            mtime: Time::default(),
            atime: Time::default(),
            ctime: Time::default(),
            uid: 0,
            gid: 0,
            user: String::new(),
            group: String::new(),
            inode: 0,
            device_id: 0,
            size: 0,
            links: 0,
            link_target: Vec::new(),
            xattrs: Vec::new(),
            generic_attributes: None,
            device: 0,
            content: None,
            subtree: None,
            error: String::new(),
        }
    }

    /// The name as a person sees it: quoted where it is not printable.
    pub fn display_name(&self) -> String {
        String::from_utf8(quote(&self.name)).expect("a quoted name is UTF-8")
    }

    /// Whether the name is one path component that cannot leave its directory. A tree with another
    /// name is hostile or damaged.
    pub fn has_safe_name(&self) -> bool {
        !matches!(&self.name[..], b"" | b"." | b"..") && !self.name.iter().any(|&byte| byte == b'/' || byte == 0)
    }

    /// The node's JSON; a long list of content is left out of it.
    pub fn json(&self) -> Json {
        let mut json = Json::default();
        if let (Some(at), Some(content)) = (self.write_short(&mut json.text), &self.content) {
            json.lists.push((at, content.clone()));
        }
        json
    }

    /// Appends the node's JSON, to the byte as restic writes it.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        if let (Some(at), Some(content)) = (self.write_short(out), &self.content) {
            let behind = out.split_off(at);
            for (number, window) in content.windows(1 << 16).enumerate() {
                write_ids(out, &window, number == 0);
            }
            out.extend_from_slice(&behind);
        }
    }

    /// Appends the node's JSON without a long list of content. Returns the position of that list.
    fn write_short(&self, out: &mut Vec<u8>) -> Option<usize> {
        out.extend_from_slice(b"{\"name\":");
        write_json_string(out, &quote(&self.name));
        print(out, format_args!(",\"type\":\"{}\"", self.ty.name()));
        number(out, "mode", u64::from(self.mode));
        print(
            out,
            format_args!(",\"mtime\":\"{}\",\"atime\":\"{}\",\"ctime\":\"{}\"", self.mtime, self.atime, self.ctime),
        );
        print(out, format_args!(",\"uid\":{},\"gid\":{}", self.uid, self.gid));
        string(out, "user", self.user.as_bytes());
        string(out, "group", self.group.as_bytes());
        number(out, "inode", self.inode);
        number(out, "device_id", self.device_id);
        number(out, "size", self.size);
        number(out, "links", self.links);
        string(out, "linktarget", &self.link_target);
        if std::str::from_utf8(&self.link_target).is_err() {
            print(out, format_args!(",\"linktarget_raw\":\"{}\"", STANDARD.encode(&self.link_target)));
        }
        self.write_xattrs(out);
        if let Some(attributes) = &self.generic_attributes {
            print(out, format_args!(",\"generic_attributes\":{attributes}"));
        }
        number(out, "device", self.device);
        let left_out = self.write_content(out);
        if let Some(subtree) = &self.subtree {
            out.extend_from_slice(b",\"subtree\":\"");
            out.extend_from_slice(&subtree.hex());
            out.push(b'"');
        }
        string(out, "error", self.error.as_bytes());
        out.push(b'}');
        left_out
    }

    fn write_xattrs(&self, out: &mut Vec<u8>) {
        for (index, xattr) in self.xattrs.iter().enumerate() {
            out.extend_from_slice(if index == 0 { b",\"extended_attributes\":[" } else { b"," });
            out.extend_from_slice(b"{\"name\":");
            write_json_string(out, &xattr.name);
            print(out, format_args!(",\"value\":\"{}\"}}", STANDARD.encode(&xattr.value)));
        }
        if !self.xattrs.is_empty() {
            out.push(b']');
        }
    }

    fn write_content(&self, out: &mut Vec<u8>) -> Option<usize> {
        let Some(content) = &self.content else {
            out.extend_from_slice(b",\"content\":null");
            return None;
        };
        out.extend_from_slice(b",\"content\":[");
        let left_out = content.is_aside().then_some(out.len());
        if left_out.is_none() {
            write_ids(out, &content.range(0..content.len()), true);
        }
        out.push(b']');
        left_out
    }
}

fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory does not fail");
}

/// `,"key":value`, left out when 0.
fn number(out: &mut Vec<u8>, key: &str, value: u64) {
    if value != 0 {
        print(out, format_args!(",\"{key}\":{value}"));
    }
}

/// `,"key":"value"`, left out when empty.
fn string(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    if !value.is_empty() {
        print(out, format_args!(",\"{key}\":"));
        write_json_string(out, value);
    }
}

/// The JSON of a node as any program writes it: every field but name and type is optional, and
/// strings without escapes are borrowed.
#[derive(Deserialize)]
pub(super) struct RawNode<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(rename = "type")]
    ty: NodeType,
    #[serde(default)]
    mode: u32,
    #[serde(default)]
    mtime: Time,
    #[serde(default)]
    atime: Time,
    #[serde(default)]
    ctime: Time,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    #[serde(borrow, default)]
    user: Cow<'a, str>,
    #[serde(borrow, default)]
    group: Cow<'a, str>,
    #[serde(default)]
    inode: u64,
    #[serde(default)]
    device_id: u64,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    links: u64,
    #[serde(borrow, default)]
    linktarget: Cow<'a, str>,
    #[serde(with = "base64_bytes", default)]
    linktarget_raw: Vec<u8>,
    #[serde(default)]
    extended_attributes: Option<Vec<Xattr>>,
    #[serde(borrow, default)]
    generic_attributes: Option<&'a RawValue>,
    #[serde(default)]
    device: u64,
    #[serde(default)]
    content: Option<Vec<Id>>,
    #[serde(default)]
    subtree: Option<Id>,
    #[serde(default)]
    error: String,
}

impl TryFrom<RawNode<'_>> for Node {
    type Error = FormatError;

    fn try_from(raw: RawNode<'_>) -> Result<Node> {
        Ok(Node {
            name: unquote(&raw.name)?,
            ty: raw.ty,
            mode: raw.mode,
            mtime: raw.mtime,
            atime: raw.atime,
            ctime: raw.ctime,
            uid: raw.uid,
            gid: raw.gid,
            user: raw.user.into_owned(),
            group: raw.group.into_owned(),
            inode: raw.inode,
            device_id: raw.device_id,
            size: raw.size,
            links: raw.links,
            link_target: if raw.linktarget_raw.is_empty() {
                raw.linktarget.as_bytes().to_vec()
            } else {
                raw.linktarget_raw
            },
            xattrs: raw.extended_attributes.unwrap_or_default(),
            generic_attributes: raw.generic_attributes.map(|attributes| attributes.get().into()),
            device: raw.device,
            content: raw.content.map(Content::from),
            subtree: raw.subtree,
            error: raw.error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::mode;

    /// Printed by Go.
    #[test]
    fn modes_are_those_of_go() {
        for (unix, go) in [
            (0o040_755, 2_147_484_141),
            (0o120_777, 134_218_239),
            (0o060_660, 67_109_296),
            (0o020_666, 69_206_454),
            (0o010_644, 33_554_852),
            (0o140_755, 16_777_709),
            (0o104_755, 8_389_101),
            (0o042_775, 2_151_678_461),
            (0o041_777, 2_148_532_735),
        ] {
            assert_eq!(mode::from_unix(unix), go);
            assert_eq!(mode::permissions(go), unix & 0o7777);
        }
    }
}

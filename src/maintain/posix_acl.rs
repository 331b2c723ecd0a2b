//! Converts POSIX access control lists from the kernel's binary form, an extended attribute, to the
//! text that tar archives carry.
//!
//! The kernel's form is version 2 of `linux/posix_acl_xattr.h`: a header of four bytes, and eight
//! bytes for each entry, all little-endian. The text is that of `acl_to_text`, with numbers for
//! users and groups: one entry per line, in the kernel's order.

use std::fmt::Write;

/// The extended attributes that hold lists, and the pax records that GNU tar, star and bsdtar
/// restore them from.
pub const RECORDS: [(&[u8], &[u8]); 2] =
    [(b"system.posix_acl_access", b"SCHILY.acl.access"), (b"system.posix_acl_default", b"SCHILY.acl.default")];

const VERSION: u32 = 2;
/// No user and no group has this number.
const UNDEFINED: u32 = u32::MAX;

/// The parts of a list, in the order in which they come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Owner,
    User,
    OwningGroup,
    Group,
    Mask,
    Other,
}

/// The text of a list, or why the kernel would refuse the value.
pub fn to_text(value: &[u8]) -> Result<String, String> {
    let bad = |why: &str| Err(format!("it is not an access control list: {why}"));
    let Some((version, entries)) = value.split_first_chunk() else { return bad("it is shorter than its header") };
    let version = u32::from_le_bytes(*version);
    if version != VERSION {
        return bad(&format!("its version is {version}, and not {VERSION}"));
    }
    let (entries, rest) = entries.as_chunks::<8>();
    if !rest.is_empty() {
        return bad("it ends within an entry");
    }
    let mut text = String::new();
    let mut parts = Vec::new();
    for [tag_low, tag_high, rights_low, rights_high, id @ ..] in entries {
        let (tag, rights) =
            (u16::from_le_bytes([*tag_low, *tag_high]), u16::from_le_bytes([*rights_low, *rights_high]));
        let id = u32::from_le_bytes(*id);
        let (part, name) = match tag {
            0x01 => (Part::Owner, "user"),
            0x02 => (Part::User, "user"),
            0x04 => (Part::OwningGroup, "group"),
            0x08 => (Part::Group, "group"),
            0x10 => (Part::Mask, "mask"),
            0x20 => (Part::Other, "other"),
            tag => return bad(&format!("an entry is of the unknown kind {tag:#x}")),
        };
        let is_of_one = matches!(part, Part::User | Part::Group);
        let qualifier = match (is_of_one, id) {
            (false, _) => String::new(),
            (true, UNDEFINED) => return bad("an entry names no user or group"),
            (true, id) => id.to_string(),
        };
        if rights > 7 {
            return bad(&format!("an entry gives the unknown rights {rights:#o}"));
        }
        if parts.last().is_some_and(|&last| part < last || (part == last && !is_of_one)) {
            return bad("its entries are not in order");
        }
        parts.push(part);
        let letter = |bit: u16, letter: char| if rights & bit != 0 { letter } else { '-' };
        let (r, w, x) = (letter(4, 'r'), letter(2, 'w'), letter(1, 'x'));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}:{qualifier}:{r}{w}{x}");
    }
    let has = |part| parts.contains(&part);
    if !(has(Part::Owner) && has(Part::OwningGroup) && has(Part::Other)) {
        return bad("the owner, the group or the others are missing");
    }
    if (has(Part::User) || has(Part::Group)) && !has(Part::Mask) {
        return bad("it names users or groups and has no mask");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(rights.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    const NONE: u32 = u32::MAX;

    /// The list that `setfacl -m u:1234:rw,u:9:x,g:0:r,g:4294967294:rwx` stores, and `getfacl -n`
    /// prints.
    #[test]
    fn a_list_becomes_the_text_of_acl_to_text() {
        let value = list(&[
            (0x01, 6, NONE),
            (0x02, 1, 9),
            (0x02, 6, 1234),
            (0x04, 4, NONE),
            (0x08, 4, 0),
            (0x08, 7, 4_294_967_294),
            (0x10, 7, NONE),
            (0x20, 0, NONE),
        ]);
        let expected = "user::rw-\nuser:9:--x\nuser:1234:rw-\ngroup::r--\ngroup:0:r--\ngroup:4294967294:rwx\nmask::rwx\nother::---\n";
        assert_eq!(to_text(&value).as_deref(), Ok(expected));
        let minimal = list(&[(0x01, 7, NONE), (0x04, 5, NONE), (0x20, 5, NONE)]);
        assert_eq!(to_text(&minimal).as_deref(), Ok("user::rwx\ngroup::r-x\nother::r-x\n"));
        let masked = list(&[(0x01, 7, 0), (0x04, 5, 0), (0x10, 0, 0), (0x20, 5, 0)]);
        assert_eq!(to_text(&masked).as_deref(), Ok("user::rwx\ngroup::r-x\nmask::---\nother::r-x\n"));
    }

    #[test]
    fn a_value_that_the_kernel_would_refuse_is_an_error() {
        let sound = list(&[(0x01, 7, NONE), (0x04, 5, NONE), (0x20, 5, NONE)]);
        let mut other_version = sound.clone();
        other_version[0] = 1;
        let bad = [
            Vec::new(),
            vec![2, 0, 0],
            list(&[]),
            other_version,
            sound[..sound.len() - 1].to_vec(),
            [&sound[..], &[0]].concat(),
            // An unknown kind, unknown rights, an undefined user.
            list(&[(0x01, 7, NONE), (0x04, 5, NONE), (0x20, 5, NONE), (0x40, 0, NONE)]),
            list(&[(0x01, 8, NONE), (0x04, 5, NONE), (0x20, 5, NONE)]),
            list(&[(0x01, 7, NONE), (0x02, 7, NONE), (0x04, 5, NONE), (0x10, 7, NONE), (0x20, 5, NONE)]),
            // Out of order, twice, without a mask, without the others.
            list(&[(0x04, 5, NONE), (0x01, 7, NONE), (0x20, 5, NONE)]),
            list(&[(0x01, 7, NONE), (0x01, 7, NONE), (0x04, 5, NONE), (0x20, 5, NONE)]),
            list(&[(0x01, 7, NONE), (0x02, 7, 5), (0x04, 5, NONE), (0x20, 5, NONE)]),
            list(&[(0x01, 7, NONE), (0x04, 5, NONE), (0x08, 5, 1), (0x20, 5, NONE)]),
            list(&[(0x01, 7, NONE), (0x04, 5, NONE)]),
        ];
        for value in bad {
            assert!(to_text(&value).is_err(), "{value:?}");
        }
    }
}

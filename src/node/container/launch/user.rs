//! Whom a container runs as: the image's `USER`, the pod's security context, `/etc/passwd`.

use serde::{Deserialize, Serialize};
use std::io;

/// Who was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRequest {
    /// `USER` of the image: `name`, `uid`, `name:group`, `uid:gid`; empty is root.
    pub image: String,
    /// Replaces the user.
    pub uid: Option<u32>,
    /// Replaces the group.
    pub gid: Option<u32>,
    /// More groups.
    pub groups: Vec<u32>,
    /// Refuse root.
    pub non_root: bool,
}

/// Who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home folder of `/etc/passwd`.
    pub home: Option<String>,
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Entry { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        Some((name, fields.next()?.parse().ok()?, fields.next().unwrap_or("")))
    })
}

/// Finds ids by the container's own `/etc/passwd` and `/etc/group`.
///
/// # Errors
/// A name that is not there; root where it is refused. The messages are the kubelet's and Docker's.
pub fn resolve(request: &UserRequest, passwd: &str, group: &str) -> io::Result<ResolvedUser> {
    let missing = |message: String| io::Error::new(io::ErrorKind::NotFound, message);
    let (user, image_group) = match request.image.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (request.image.as_str(), None),
    };
    let by_uid = |uid: u32| entries(passwd).find(|e| e.uid == uid);
    let entry = match (request.uid, user) {
        (Some(uid), _) => by_uid(uid),
        (None, "") => by_uid(0),
        (None, name) => match (entries(passwd).find(|e| e.name == name), name.parse()) {
            (Some(entry), _) => Some(entry),
            (None, Ok(uid)) => by_uid(uid),
            (None, Err(_)) => {
                return Err(missing(format!("unable to find user {name}: no matching entries in passwd file")));
            }
        },
    };
    let uid = match (request.uid, &entry) {
        (Some(uid), _) => uid,
        (None, Some(entry)) => entry.uid,
        (None, None) => user.parse().unwrap_or(0),
    };
    if request.non_root && uid == 0 {
        let message = "container has runAsNonRoot and image will run as root";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    let gid = match (request.gid, image_group.filter(|_| request.uid.is_none())) {
        (Some(gid), _) => gid,
        (None, Some(name)) => match (groups(group).find(|g| g.0 == name), name.parse()) {
            (Some(found), _) => found.1,
            (None, Ok(gid)) => gid,
            (None, Err(_)) => {
                return Err(missing(format!("unable to find group {name}: no matching entries in group file")));
            }
        },
        (None, None) => entry.as_ref().map_or(0, |e| e.gid),
    };
    let member = |members: &str| entry.as_ref().is_some_and(|e| members.split(',').any(|m| m == e.name));
    let mut all = request.groups.clone();
    all.extend(groups(group).filter(|g| member(g.2)).map(|g| g.1));
    all.sort_unstable();
    all.dedup();
    let home = entry.map(|e| e.home.to_owned()).filter(|h| !h.is_empty());
    Ok(ResolvedUser { uid, gid, groups: all, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:34:www:/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlogs:x:50:www,ada\n";

    fn of(image: &str) -> UserRequest {
        UserRequest { image: image.into(), ..UserRequest::default() }
    }

    #[test]
    fn resolves_names_numbers_and_members() {
        let www = resolve(&of("www"), PASSWD, GROUP).unwrap();
        assert_eq!((www.uid, www.gid, www.groups, www.home.as_deref()), (33, 34, vec![50], Some("/var/www")));
        let number = resolve(&of("65532:65533"), "", "").unwrap();
        assert_eq!((number.uid, number.gid, number.home), (65532, 65533, None));
        assert_eq!(resolve(&of("33:logs"), PASSWD, GROUP).unwrap().gid, 50);
        assert_eq!(resolve(&of(""), "", "").unwrap().uid, 0);
    }

    #[test]
    fn the_pod_wins_over_the_image() {
        let request = UserRequest { uid: Some(1000), gid: None, groups: vec![7], ..of("www:logs") };
        let user = resolve(&request, PASSWD, GROUP).unwrap();
        assert_eq!((user.uid, user.gid, user.groups), (1000, 0, vec![7]));
    }

    #[test]
    fn refuses_unknown_names_and_root() {
        assert!(resolve(&of("nobody"), PASSWD, GROUP).unwrap_err().to_string().contains("unable to find user nobody"));
        assert!(resolve(&of("www:none"), PASSWD, GROUP).is_err());
        let root = UserRequest { non_root: true, ..of("") };
        assert!(resolve(&root, PASSWD, GROUP).unwrap_err().to_string().contains("runAsNonRoot"));
    }
}

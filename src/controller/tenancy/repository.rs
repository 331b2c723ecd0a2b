//! The repository of a volume, the owner of a repository that a restore names, and the record of
//! repositories that exist.
//!
//! [`provenance`](crate::provenance) has the path layouts. Locations are compared part by part
//! after cleaning, never as texts. This module contacts no store.

use crate::id::Id;
use crate::kubernetes::naming::MANAGED_BY;
use crate::provenance::{self, Layout};
use crate::store::Location;
use crate::store::location::{Bucket, Service};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// The location that repositories must be below: that of the administrator's secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The secret's own location: VolumeSnapshotMover's repositories are here, without the prefix.
    own: Bucket,
    /// With the backup location's prefix: new repositories are here.
    prefixed: Bucket,
}

/// Why a location is refused, without contacting it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Unusable(String),
    #[error("the location is a folder, and only buckets are supported")]
    Folder,
    #[error("the repository {repository} is not in the bucket and path of the secret's own location {base}")]
    Elsewhere { repository: String, base: String },
}

fn bucket(location: &str) -> Result<Bucket, Refused> {
    match location.parse() {
        Ok(Location::Bucket(bucket)) => Ok(bucket),
        Ok(Location::Folder(_)) => Err(Refused::Folder),
        Err(error) => Err(Refused::Unusable(error.to_string())),
    }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

impl Base {
    /// The base that a secret's `RESTIC_REPOSITORY` and the backup location's prefix make together.
    pub fn new(secret: &str, prefix: &str) -> Result<Base, Refused> {
        let own = bucket(secret)?;
        if prefix.is_empty() {
            return Ok(Base { prefixed: own.clone(), own });
        }
        // The parser cleans a prefix by the rules of all locations.
        let joined = own.at([own.prefix.as_str(), prefix].join("/"));
        let prefixed = bucket(&joined.to_string())?;
        if below(&prefixed.prefix, &own.prefix).is_none() {
            return Err(Refused::Unusable(format!("the prefix {prefix:?} leaves the location {own}")));
        }
        Ok(Base { own, prefixed })
    }

    /// The service that has the bucket.
    pub fn service(&self) -> &Service {
        &self.own.service
    }

    /// The repository of a claim.
    pub fn of_volume(&self, cluster: &str, namespace: &str, claim: &str) -> String {
        let below = [provenance::DIRECTORY, cluster, namespace, claim];
        self.prefixed.below(&below.join("/")).to_string()
    }

    /// The layout of a location below the secret's own, and the location in the form that restic
    /// opens; an error if it is not below it.
    pub fn locate(&self, repository: &str) -> Result<(String, Layout), Refused> {
        let there = bucket(repository)?;
        let Some(whole) = below(&there.prefix, &self.own.prefix).filter(|_| there.is_beside(&self.own)) else {
            return Err(Refused::Elsewhere { repository: there.to_string(), base: self.own.to_string() });
        };
        // A prefix may look like the protected namespace that old paths begin with: below the
        // prefix only new paths are accepted.
        let ours = below(&there.prefix, &self.prefixed.prefix).map(|below| Layout::of(&below));
        let layout = ours.filter(|it| matches!(it, Layout::Volume { .. })).unwrap_or_else(|| Layout::of(&whole));
        // The base's own notation makes two names of one location the same text.
        Ok((self.own.at(there.prefix.clone()).to_string(), layout))
    }
}

/// The backup that may create a repository, by the name and uid of its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    pub name: String,
    pub uid: String,
}

/// The recorded state of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No backup has claimed it.
    Unknown,
    /// This backup may create it.
    Begun(Maker),
    /// It was created, and is never created again: a bucket that lost it must not look like a new
    /// one.
    Made,
}

/// The key of a record with the name and the uid of the maker; empty once the repository was
/// created.
const MAKER_KEY: &str = "madeBy";

/// The name of a repository's record, a ConfigMap: the lock between two backups that would both
/// create the repository.
pub fn record_name(repository: &str) -> String {
    format!("vsm-repository-{}", &Id::of(repository.as_bytes()).to_string()[..32])
}

/// The record of a repository that `maker` may create, or that was created. It replaces only the
/// record that was read (`over`), by its resource version.
pub fn record(repository: &str, maker: Option<&Maker>, namespace: &str, over: Option<&ConfigMap>) -> ConfigMap {
    let labels = BTreeMap::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())]);
    let maker = maker.map_or_else(String::new, |maker| format!("{}/{}", maker.name, maker.uid));
    let data = [("repository", repository.to_owned()), (MAKER_KEY, maker)];
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(record_name(repository)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            resource_version: over.and_then(ResourceExt::resource_version),
            ..ObjectMeta::default()
        },
        data: Some(data.map(|(key, value)| (key.to_owned(), value)).into()),
        ..ConfigMap::default()
    }
}

/// The state that a record has.
pub fn standing(record: Option<&ConfigMap>) -> Standing {
    let Some(record) = record else { return Standing::Unknown };
    let maker = record.data.as_ref().and_then(|data| data.get(MAKER_KEY)?.split_once('/'));
    maker.map_or(Standing::Made, |(name, uid)| Standing::Begun(Maker { name: name.to_owned(), uid: uid.to_owned() }))
}

/// The components of a cleaned path below another one; `None` if it is not below it.
fn below<'p>(path: &'p str, base: &str) -> Option<Vec<&'p str>> {
    let mut path = parts(path);
    let below = parts(base).all(|part| path.next() == Some(part));
    Some(path.collect()).filter(|rest: &Vec<_>| below && !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(secret: &str, prefix: &str) -> Base {
        Base::new(secret, prefix).unwrap()
    }

    #[test]
    fn a_volume_has_one_repository_below_restic() {
        let url = |secret, prefix| base(secret, prefix).of_volume("cluster", "shop", "data");
        assert_eq!(url("s3:https://host:9000/bkt", ""), "s3:https://host:9000/bkt/restic/cluster/shop/data");
        assert_eq!(
            url("s3:s3.amazonaws.com/bkt/", "velero/"),
            "s3:https://s3.amazonaws.com/bkt/velero/restic/cluster/shop/data"
        );
        assert_eq!(url("s3:http://host/bkt/a//b/", "/c/./d/"), "s3:http://host/bkt/a/b/c/d/restic/cluster/shop/data");
        assert_eq!(url("azure:bkt:", "velero"), "azure:bkt:/velero/restic/cluster/shop/data");
        assert_eq!(url("gs:bkt:", ""), "gs:bkt:/restic/cluster/shop/data");
        // The location is recognised again.
        let base = base("s3:http://host/bkt/a", "c");
        let (again, layout) = base.locate(&base.of_volume("cluster", "shop", "data")).unwrap();
        assert_eq!(again, "s3:http://host/bkt/a/c/restic/cluster/shop/data");
        let expected = Layout::Volume { cluster: "cluster".into(), namespace: "shop".into(), claim: "data".into() };
        assert_eq!(layout, expected);
    }

    #[test]
    fn only_buckets_are_bases() {
        for folder in ["/mnt/backups", "local:/mnt", "relative"] {
            assert_eq!(Base::new(folder, ""), Err(Refused::Folder));
        }
        for bad in
            ["", "sftp:host:/x", "s3:https://key:secret@host/bkt", "s3:https://host", "s3:https://host/bkt/../other"]
        {
            assert!(matches!(Base::new(bad, ""), Err(Refused::Unusable(_))), "{bad}");
        }
        assert!(matches!(Base::new("s3:https://host/bkt/deep/er", "../../x"), Err(Refused::Unusable(_))));
    }

    /// A tenant could write these locations into a restore.
    #[test]
    fn only_locations_below_the_base_are_located() {
        let base = base("s3:https://host/bkt/tenants", "");
        for bad in [
            "s3:https://host/bkt/tenants",
            "s3:https://host/bkt/tenants/",
            "s3:https://host/bkt/tenants-of-others/x/y-pvc",
            "s3:https://host/bkt/tenants/../other/x",
            "s3:https://host/bkt/tenants/%2e%2e/other/x",
            "s3:https://host/other/tenants/x",
            "s3:http://host/bkt/tenants/x",
            "s3:https://evil.example/bkt/tenants/x",
            "s3:https://host:8443/bkt/tenants/x",
            "s3:https://host/BKT/tenants/x",
        ] {
            assert!(matches!(base.locate(bad), Err(Refused::Elsewhere { .. })), "{bad}");
        }
        assert_eq!(base.locate("/etc"), Err(Refused::Folder));
        assert!(matches!(base.locate("s3:https://host/../../etc"), Err(Refused::Unusable(_))));
        assert!(matches!(base.locate("s3:https://me:pw@host/bkt/tenants/x"), Err(Refused::Unusable(_))));
        // The location is cleaned, and the endpoint may have another notation.
        let (url, _) = base.locate("s3:HOST/bkt//tenants/./a/../b/").unwrap();
        assert_eq!(url, "s3:https://host/bkt/tenants/b");
    }

    /// The path layouts of VolumeSnapshotMover's repositories.
    #[test]
    fn volumesnapshotmover_repositories_are_recognised() {
        let base = base("s3:s3.amazonaws.com/bkt", "");
        let layout = |url: &str| base.locate(url).unwrap().1;
        let old = |backup: Option<&str>| Layout::Old {
            protected: "openshift-adp".into(),
            backup: backup.map(Into::into),
            content: "snapcontent-1".into(),
        };
        assert_eq!(layout("s3:s3.amazonaws.com/bkt/openshift-adp/b1/snapcontent-1-pvc"), old(Some("b1")));
        assert_eq!(layout("s3:s3.amazonaws.com/bkt/openshift-adp/snapcontent-1-pvc"), old(None));
        // A repository in another container or service is not below the base.
        for (own, others) in [("azure:bkt:", "gs:bkt:"), ("gs:bkt:", "azure:bkt:")] {
            let base = self::base(own, "");
            let found = base.locate(&format!("{own}/openshift-adp/b1/snapcontent-1-pvc")).unwrap().1;
            assert_eq!(found, old(Some("b1")));
            for elsewhere in [others, "s3:s3.amazonaws.com/bkt", "azure:bkt-2:", "gs:bkt-2:"] {
                let located = base.locate(&format!("{elsewhere}/openshift-adp/b1/snapcontent-1-pvc"));
                assert!(matches!(located, Err(Refused::Elsewhere { .. })), "{elsewhere}");
            }
        }
        // An empty backup label leaves two slashes, which restic treats as one.
        assert_eq!(layout("s3:s3.amazonaws.com/bkt/openshift-adp//snapcontent-1-pvc"), old(None));
        assert_eq!(layout("s3:s3.amazonaws.com/bkt/data-mover-snapshots"), Layout::Unknown);
        assert_eq!(layout("s3:s3.amazonaws.com/bkt/restic/cluster/data-pvc"), Layout::Unknown);
    }

    #[test]
    fn a_record_names_its_maker_until_the_repository_is_made() {
        let maker = Maker { name: "vsb".into(), uid: "u-1".into() };
        let mut begun = record("s3:https://host/bkt/x", Some(&maker), "adp", None);
        assert_eq!(standing(Some(&begun)), Standing::Begun(maker));
        assert_eq!(begun.metadata.name.as_deref().map(str::len), Some(47));
        begun.metadata.resource_version = Some("7".into());
        let made = record("s3:https://host/bkt/x", None, "adp", Some(&begun));
        assert_eq!((standing(Some(&made)), standing(None)), (Standing::Made, Standing::Unknown));
        assert_eq!(
            (&made.metadata.name, &made.metadata.resource_version),
            (&begun.metadata.name, &begun.metadata.resource_version)
        );
    }

    /// VolumeSnapshotMover ignored the prefix of a backup location.
    #[test]
    fn volumesnapshotmover_repositories_are_located_outside_the_prefix() {
        let layout = |prefix: &str, url: &str| base("s3:https://host/bkt", prefix).locate(url).map(|it| it.1);
        let old =
            Layout::Old { protected: "velero".into(), backup: Some("b1".into()), content: "snapcontent-1".into() };
        let volume =
            |cluster: &str| Layout::Volume { cluster: cluster.into(), namespace: "shop".into(), claim: "data".into() };
        for prefix in ["", "velero", "backups/of"] {
            assert_eq!(
                layout(prefix, "s3:https://host/bkt/velero/b1/snapcontent-1-pvc").as_ref(),
                Ok(&old),
                "{prefix}"
            );
            assert_eq!(layout(prefix, "s3:https://host/bkt/restic/c1/shop/data"), Ok(volume("c1")), "{prefix}");
        }
        assert_eq!(layout("velero", "s3:https://host/bkt/velero/restic/c2/shop/data"), Ok(volume("c2")));
        assert_eq!(layout("other", "s3:https://host/bkt/velero/restic/c2/shop/data"), Ok(Layout::Unknown));
        assert!(matches!(layout("velero", "s3:https://host/bucket/velero/x"), Err(Refused::Elsewhere { .. })));
    }
}

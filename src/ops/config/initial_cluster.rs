//! `--initial-cluster`: each member's name and peer URLs.

use std::collections::BTreeMap;
use std::fmt;

use super::url::Url;
use super::value::{self, BadValue};

/// Members by name; a member with several URLs is written once per URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialCluster {
    members: BTreeMap<String, Vec<Url>>,
}

impl InitialCluster {
    /// A cluster of this member alone.
    pub fn of_one(name: &str, urls: &[Url]) -> Self {
        Self { members: BTreeMap::from([(name.to_owned(), urls.to_vec())]) }
    }

    /// Reads `name=url,name=url`.
    ///
    /// # Errors
    /// When an item has no `=`, or its URL is malformed.
    pub fn parse(text: &str) -> Result<Self, BadValue> {
        let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        for item in value::list(text) {
            let (name, url) = item
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| BadValue::new(&item, "name=url"))?;
            members.entry(name.to_owned()).or_default().extend(value::urls(url)?);
        }
        for urls in members.values_mut() {
            urls.sort();
            urls.dedup();
        }
        Ok(Self { members })
    }

    /// The peer URLs of a member.
    pub fn urls_of(&self, name: &str) -> Option<&[Url]> {
        self.members.get(name).map(Vec::as_slice)
    }

    /// Each member with its URLs, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Url])> {
        self.members.iter().map(|(name, urls)| (name.as_str(), urls.as_slice()))
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

impl fmt::Display for InitialCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.iter().flat_map(|(name, urls)| urls.iter().map(move |url| (name, url)));
        for (at, (name, url)) in pairs.enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}={url}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_may_have_several_urls() {
        let cluster = InitialCluster::parse("b=http://h:2,a=http://h:1,b=http://h:0").expect("well-formed");
        assert_eq!(cluster.len(), 2);
        assert_eq!(cluster.to_string(), "a=http://h:1,b=http://h:0,b=http://h:2");
    }

    #[test]
    fn refuses_items_without_name_or_url() {
        for text in ["http://h:1", "=http://h:1", "a=h:1", "a"] {
            assert!(InitialCluster::parse(text).is_err(), "{text}");
        }
    }
}

//! The repository's config: format version, id, and the polynomial that decides where files are
//! cut.

use super::{FormatError, Result, Version};
use crate::chunk::Polynomial;
use crate::id::Id;
use serde::{Deserialize, Serialize};

/// The config file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub version: Version,
    pub id: Id,
    pub polynomial: Polynomial,
    /// Fields of other programs, kept when the config is written again. A number that fits into
    /// neither 64 bits nor a double becomes the nearest double.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct RawConfig {
    version: u32,
    id: Id,
    chunker_polynomial: String,
    #[serde(flatten)]
    extra: serde_json::Map<String, serde_json::Value>,
}

impl Config {
    pub fn decode(json: &[u8]) -> Result<Config> {
        let bad = |why: String| FormatError::new("the config", why);
        let raw: RawConfig = serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
        let version = match raw.version {
            1 => Version::V1,
            2 => Version::V2,
            other => return Err(bad(format!("repository version {other} is not supported (1 and 2 are)"))),
        };
        let polynomial = raw.chunker_polynomial.parse().map_err(|error| bad(format!("chunker_polynomial: {error}")))?;
        Ok(Config { version, id: raw.id, polynomial, extra: raw.extra })
    }

    pub fn encode(&self) -> Vec<u8> {
        let raw = RawConfig {
            version: self.version.number(),
            id: self.id,
            chunker_polynomial: self.polynomial.to_string(),
            extra: self.extra.clone(),
        };
        serde_json::to_vec(&raw).expect("plain data")
    }

    /// The setting by which rustic cuts files differently from restic, if any. Our chunks then
    /// never equal the existing ones.
    pub fn foreign_chunker(&self) -> Option<String> {
        ["chunker", "chunk_size", "chunk_min_size", "chunk_max_size"]
            .iter()
            .filter_map(|&key| self.extra.get(key).map(|value| format!("{key}={value}")))
            .find(|setting| setting != "chunker=\"Rabin\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_restic_and_rustic_and_refuses_damage() {
        let id = "a".repeat(64);
        let json = |version, polynomial| {
            format!(r#"{{"version":{version},"id":"{id}","chunker_polynomial":"{polynomial}","append_only":true}}"#)
        };
        let config = Config::decode(json(2, "25b468838dcb75").as_bytes()).unwrap();
        assert_eq!((config.version, config.foreign_chunker()), (Version::V2, None));
        assert_eq!(Config::decode(&config.encode()).unwrap(), config);
        // An imprecise parser misses this number by the last bit, and would change it with each
        // write.
        let fraction = "6.666666666666666666666666666666666666666666666666666661e94";
        let config = Config::decode(json(2, "25b468838dcb75").replace("true", fraction).as_bytes()).unwrap();
        assert_eq!(config.extra["append_only"].as_f64(), fraction.parse().ok());
        assert_eq!(Config::decode(&config.encode()).unwrap(), config);
        for bad in [
            json(0, "25b468838dcb75"),
            json(3, "25b468838dcb75"),
            json(2, "38f1e565e288df"),
            json(2, ""),
            String::new(),
            "{}".into(),
        ] {
            assert!(Config::decode(bad.as_bytes()).is_err(), "{bad}");
        }
        let fixed = json(2, "25b468838dcb75").replace("append_only\":true", "chunker\":\"FixedSize\"");
        assert!(Config::decode(fixed.as_bytes()).unwrap().foreign_chunker().is_some());
    }
}

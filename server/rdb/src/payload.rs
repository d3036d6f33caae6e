//! Payloads of DUMP and FUNCTION DUMP: a body, its format version, and a checksum of both.

use std::fmt;

use crc::{CRC_64_REDIS, Crc, Table};

use crate::error::RdbError;

const CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);
static CRC_TABLES: Crc<u64, Table<16>> = CRC;

/// Bytes of the footer: version and checksum.
const FOOTER: usize = VERSION + CHECKSUM;
const VERSION: usize = 2;
const CHECKSUM: usize = 8;

/// A version of the RDB format. Redis and Valkey have shared the versions up to 11.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FormatVersion(pub u16);

impl FormatVersion {
    /// What Redis 7.0 writes: the first with functions.
    pub const REDIS_7_0: Self = Self(10);
    /// What Redis 7.4 to 8.2 write.
    pub const REDIS_7_4: Self = Self(12);
    /// What Valkey 9 writes.
    pub const VALKEY_9: Self = Self(80);

    /// Whether the elements of this crate are the same in this version. Versions between those of
    /// Redis and of Valkey belong to later versions of Redis, which may differ.
    #[must_use]
    pub fn is_supported(self) -> bool {
        self <= Self::REDIS_7_4 || self == Self::VALKEY_9
    }
}

impl fmt::Display for FormatVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A payload whose footer is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payload<'a> {
    /// What is before the footer.
    pub body: &'a [u8],
    /// The version of its format.
    pub version: FormatVersion,
}

/// The checksum of RDB data: CRC-64 with the polynomial of Jones, which begins with 0.
#[must_use]
pub fn crc64(bytes: &[u8]) -> u64 {
    CRC_TABLES.checksum(bytes)
}

/// Appends the footer.
pub fn seal(body: &mut Vec<u8>, version: FormatVersion) {
    body.extend_from_slice(&version.0.to_le_bytes());
    let checksum = crc64(body);
    body.extend_from_slice(&checksum.to_le_bytes());
}

/// Checks the footer.
///
/// # Errors
/// The payload is too short, of a version that is not supported, or does not match its checksum.
pub fn unseal(payload: &[u8]) -> Result<Payload<'_>, RdbError> {
    let no_footer = RdbError::NoFooter { length: payload.len() };
    let start = payload.len().checked_sub(FOOTER).ok_or(no_footer)?;
    let (body, footer) = payload.split_at(start);
    let (version, checksum) = footer.split_first_chunk::<VERSION>().ok_or(no_footer)?;
    let checksum = checksum.first_chunk::<CHECKSUM>().ok_or(no_footer)?;
    let version = FormatVersion(u16::from_le_bytes(*version));
    if !version.is_supported() {
        return Err(RdbError::UnsupportedVersion { version });
    }
    let stored = u64::from_le_bytes(*checksum);
    let computed = crc64(&payload[..start + VERSION]);
    if stored != computed {
        return Err(RdbError::WrongChecksum { stored, computed });
    }
    Ok(Payload { body, version })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_has_the_check_value_of_its_catalogue() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(crc64(b""), 0);
    }

    /// What FUNCTION DUMP of redis-server 7.0.15, 8.2.3 and valkey-server 9.1.2 replies without
    /// functions.
    #[test]
    fn footers_of_other_servers_are_right() {
        let payloads: [(&[u8], _); 3] = [
            (b"\n\x00]\x9b\\@\x0f\x7f\xa2\xda", FormatVersion::REDIS_7_0),
            (b"\x0c\x00\x96\xedh\x80\xf5U<\x93", FormatVersion::REDIS_7_4),
            (b"P\x00\x92\xb1\x95\xd1\x91-\xc5.", FormatVersion::VALKEY_9),
        ];
        for (payload, version) in payloads {
            assert_eq!(unseal(payload), Ok(Payload { body: b"", version }));
            let mut sealed = Vec::new();
            seal(&mut sealed, version);
            assert_eq!(sealed, payload);
        }
    }

    #[test]
    fn versions_of_unknown_formats_are_refused() {
        for version in [13, 79, 81, u16::MAX].map(FormatVersion) {
            let mut payload = b"body".to_vec();
            seal(&mut payload, version);
            assert_eq!(unseal(&payload), Err(RdbError::UnsupportedVersion { version }));
        }
    }

    proptest! {
        #[test]
        fn every_change_of_a_payload_is_found(
            body in prop::collection::vec(any::<u8>(), 0..80),
            flip in 1..=u8::MAX,
        ) {
            let mut payload = body.clone();
            seal(&mut payload, FormatVersion::REDIS_7_0);
            prop_assert_eq!(unseal(&payload).unwrap().body, &body);
            for i in 0..payload.len() {
                prop_assert!(unseal(&payload[..i]).is_err());
                payload[i] ^= flip;
                prop_assert!(unseal(&payload).is_err());
                payload[i] ^= flip;
            }
        }
    }
}

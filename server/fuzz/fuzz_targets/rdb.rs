//! Fuzz target of the readers of RDB data: strings, LZF, and payloads of functions.
//!
//! The first byte of an input is the length that LZF data claims, in units of 64 bytes.
#![no_main]

use cowherd_rdb::{FormatVersion, Libraries, Reader, lzf, seal, unseal, write_string};
use libfuzzer_sys::fuzz_target;

/// Longer strings are refused, so that an input cannot become a gibibyte.
const MAX_STRING: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let [claim, data @ ..] = input else { return };
    let mut reader = Reader::new(data).with_max_string(MAX_STRING);
    while !reader.is_at_end() {
        let start = reader.offset();
        match reader.string() {
            Ok(string) => assert!(string.len() <= MAX_STRING && reader.offset() > start),
            Err(_) => {
                assert_eq!(reader.offset(), start);
                break;
            }
        }
    }

    let length = usize::from(*claim) * 64;
    if let Ok(output) = lzf::decompress(data, length) {
        assert_eq!(output.len(), length);
    }
    let mut written = Vec::new();
    write_string(&mut written, data);
    assert_eq!(&*Reader::new(&written).string().unwrap(), data);

    assert!(unseal(data).is_err() || data.len() >= 10);
    let mut payload = data.to_vec();
    seal(&mut payload, FormatVersion::REDIS_7_0);
    let payload = unseal(&payload).unwrap();
    assert_eq!(payload.body, data);
    let reader = Reader::new(payload.body).with_max_string(MAX_STRING);
    for library in Libraries::from_reader(reader) {
        assert!(library.is_err() || library.unwrap().len() <= MAX_STRING);
    }
});

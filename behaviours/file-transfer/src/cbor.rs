//! CBOR in and out: structs are maps with text keys, byte strings are byte strings, nothing may follow a value.

use cbor4ii::core::dec::Read as _;
use cbor4ii::core::utils::SliceReader;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The bytes are not CBOR of the expected shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not CBOR of the expected shape")]
pub(crate) struct Malformed;

/// The CBOR of a value of ours.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "our types always serialise, and only allocation could fail")]
    cbor4ii::serde::to_vec(Vec::new(), value).expect("our types have a CBOR form")
}

/// Read exactly one value. cbor4ii would ignore bytes behind it, in which two readers could see different things.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    let mut deserializer = cbor4ii::serde::Deserializer::new(SliceReader::new(bytes));
    let value = T::deserialize(&mut deserializer).map_err(|_| Malformed)?;
    let rest_is_empty = deserializer.into_inner().fill(1).is_ok_and(|rest| rest.as_ref().is_empty());
    if rest_is_empty { Ok(value) } else { Err(Malformed) }
}

/// Bytes that are a CBOR byte string, where `Vec<u8>` would be an array of numbers.
pub(crate) type Bytes = serde_bytes::ByteBuf;

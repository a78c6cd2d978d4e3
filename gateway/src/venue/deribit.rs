//! Deribit.

use tickfan_core::market::{EventBatch, InstrumentId, Listing, Nanos};

use super::{
    Checksum, DecodeError, Endpoints, ImageDecoder, Malformed, Resync, Subscription, VenueDecoder,
};

/// The default endpoints.
pub fn endpoints() -> Endpoints {
    unimplemented!()
}

/// Reads the instrument list.
///
/// # Errors
/// [`Malformed`].
pub fn listings(_body: &[u8]) -> Result<Vec<Listing>, Malformed> {
    unimplemented!()
}

/// Decodes one connection.
pub struct Decoder;

impl Decoder {
    /// A decoder for the instruments of one connection.
    pub fn new(_subscription: Subscription) -> Self {
        Self
    }
}

impl VenueDecoder for Decoder {
    fn stream_path(&self) -> &str {
        unimplemented!()
    }
    fn subscribe(&self) -> Vec<String> {
        unimplemented!()
    }
    fn resync(&mut self, _instrument: InstrumentId, _first: bool) -> Resync {
        unimplemented!()
    }
    fn decode(&mut self, _message: &mut [u8], _out: &mut EventBatch) -> Result<(), DecodeError> {
        unimplemented!()
    }
    fn image_decoder(&self) -> ImageDecoder {
        unimplemented!()
    }
    fn has_bbo_stream(&self) -> bool {
        unimplemented!()
    }
    fn checksum(&self) -> Option<Checksum> {
        unimplemented!()
    }
    fn silence_ns(&self) -> Nanos {
        unimplemented!()
    }
    fn keepalive(&self) -> Option<(String, Nanos)> {
        unimplemented!()
    }
    fn truncate_at(&self) -> Option<usize> {
        unimplemented!()
    }
}

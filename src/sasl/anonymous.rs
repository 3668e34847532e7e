//! Guests: ANONYMOUS (RFC 4505).

use super::error::SaslError;
use super::exchange::{Exchange, Next, Step};

/// The one message, which may say who the guest is. Nobody can check that, and it is not kept.
pub(super) fn first(data: &[u8]) -> Next {
    let text = std::str::from_utf8(data).map_err(|_| SaslError::MalformedRequest)?;
    if text.chars().count() > MOST_TRACE || text.contains('\0') {
        return Err(SaslError::MalformedRequest);
    }
    Ok((Some(Exchange::Guest), Step::NeedGuest))
}

/// Characters of the trace (RFC 4505 §2).
const MOST_TRACE: usize = 255;

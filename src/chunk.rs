//! What is left of a chunk. Never keeps the memory of one that is used up.

use bytes::{Buf, Bytes};

/// Takes `n` bytes off the front, and with the last ones lets go of the memory: an empty rest would still keep all of it, a
/// block of a buffer for one, until the next chunk comes.
#[inline]
pub(crate) fn take_off(chunk: &mut Bytes, n: usize) {
    if n < chunk.len() {
        chunk.advance(n);
    } else {
        *chunk = Bytes::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_byte_lets_go_of_the_memory() {
        let whole = Bytes::from(vec![1; 10]);
        let mut rest = whole.clone();
        take_off(&mut rest, 9);
        assert!(rest.len() == 1 && !whole.is_unique());
        take_off(&mut rest, 5);
        assert!(rest.is_empty() && whole.is_unique());
    }
}

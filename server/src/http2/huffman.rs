//! The Huffman code of header strings (RFC 7541, section 5.2 and appendix B).
//!
//! The code is canonical: codes of one length are consecutive and follow the order of the symbols, so that their lengths
//! say everything.

/// Bits of the code of each octet, and last of the end-of-string symbol (RFC 7541, appendix B).
#[rustfmt::skip]
pub const CODE_BITS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const SYMBOLS: usize = 257;
const END_OF_STRING: u16 = 256;
const LONGEST: usize = 30;
const CODE: Code = Code::new();

/// A string that the code cannot have produced: a wrong or too long padding, or the end-of-string symbol inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed Huffman string")]
pub struct HuffmanError;

/// Appends what `input` stands for to `out`: at most 8 octets for each 5 of input.
///
/// # Errors
/// If `input` is not a whole string. `out` then holds what came before the error.
pub fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), HuffmanError> {
    let mut input = input.iter();
    // The bits not yet decoded, leftmost first.
    let mut bits: u64 = 0;
    let mut count: u32 = 0;
    loop {
        while count <= u64::BITS - 8 {
            let Some(&octet) = input.next() else { break };
            bits |= u64::from(octet) << (u64::BITS - 8 - count);
            count += 8;
        }
        // Behind the last bit stand ones, as in a padding.
        let window = ((bits | u64::MAX.checked_shr(count).unwrap_or(0)) >> u32::BITS) as u32;
        let (symbol, length) = CODE.symbol(window);
        if length > count {
            let padding_only = count < 8 && window == u32::MAX;
            return if padding_only { Ok(()) } else { Err(HuffmanError) };
        }
        if symbol == END_OF_STRING {
            return Err(HuffmanError);
        }
        out.push(symbol as u8);
        bits <<= length;
        count -= length;
    }
}

/// The code, ordered for decoding.
struct Code {
    /// By length of their code, then by value.
    symbols: [u16; SYMBOLS],
    /// The first code of each length, and the place of its symbol.
    first: [u32; LONGEST + 1],
    place: [u32; LONGEST + 1],
    /// Behind the last code of each length, moved to the left edge of 32 bits.
    end: [u64; LONGEST + 1],
}

impl Code {
    const fn new() -> Self {
        let mut code =
            Self { symbols: [0; SYMBOLS], first: [0; LONGEST + 1], place: [0; LONGEST + 1], end: [0; LONGEST + 1] };
        let (mut length, mut next, mut place) = (1, 0_u32, 0);
        while length <= LONGEST {
            next <<= 1;
            code.first[length] = next;
            code.place[length] = place as u32;
            let mut symbol = 0;
            while symbol < SYMBOLS {
                if CODE_BITS[symbol] as usize == length {
                    code.symbols[place] = symbol as u16;
                    place += 1;
                    next += 1;
                }
                symbol += 1;
            }
            code.end[length] = (next as u64) << (32 - length);
            length += 1;
        }
        code
    }

    /// The symbol whose code `window` begins with, and its length. The code is complete, so that there is always one.
    fn symbol(&self, window: u32) -> (u16, u32) {
        let mut length = 5;
        while length < LONGEST && u64::from(window) >= self.end[length] {
            length += 1;
        }
        let place = self.place[length] + ((window >> (32 - length)) - self.first[length]);
        (self.symbols[place as usize], length as u32)
    }
}

#[cfg(test)]
mod tests;

//! Decoding of header blocks (RFC 7541): time and memory grow with the encoded octets, whatever they stand for.

use super::{
    huffman::{self, HuffmanError},
    table::{NewName, Table},
};

/// One header field, as the client sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Pseudo-headers begin with a colon.
    pub name: &'a [u8],
    /// Any octets.
    pub value: &'a [u8],
    /// The client asks that nobody keeps it in a table (RFC 7541, section 6.2.3).
    pub never_indexed: bool,
}

/// Why a header block cannot be decoded. Its connection is lost, for the tables of both sides may differ from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The block ends within a field.
    #[error("header block ends within a field")]
    Truncated,
    /// An integer above any that makes sense here.
    #[error("integer too large")]
    Integer,
    /// An index that no table has.
    #[error("no field has this index")]
    Index,
    /// A dynamic table that is larger than allowed, or resized in the middle of a block.
    #[error("illegal change of the dynamic table's size")]
    TableSize,
    /// A string that is no Huffman code.
    #[error(transparent)]
    Huffman(#[from] HuffmanError),
}

/// The state of one connection's header compression, on the receiving side.
#[derive(Debug, Default)]
pub struct Decoder {
    table: Table,
}

impl Decoder {
    /// Calls `each` with every field of a whole block, in its order.
    ///
    /// # Errors
    /// If the block breaks a rule of RFC 7541. The fields before the error have been handed out.
    pub fn decode(&mut self, block: &[u8], mut each: impl FnMut(Field<'_>)) -> Result<(), DecodeError> {
        let mut input = Input(block);
        let mut scratch = Scratch::default();
        let mut at_start = true;
        while let Some(&first) = input.0.first() {
            match first {
                0x80.. => {
                    let index = input.integer(7)?;
                    let (name, value) = self.table.field(index).ok_or(DecodeError::Index)?;
                    each(Field { name, value, never_indexed: false });
                }
                0x40..0x80 => {
                    let (name, value) = self.literal(&mut input, 6, &mut scratch)?;
                    each(Field { name: name.octets(), value, never_indexed: false });
                    self.table.insert(name, value);
                }
                0x20..0x40 => {
                    let size = input.integer(5)?;
                    if !at_start || !self.table.resize(size) {
                        return Err(DecodeError::TableSize);
                    }
                    continue;
                }
                0x00..0x20 => {
                    let (name, value) = self.literal(&mut input, 4, &mut scratch)?;
                    each(Field { name: name.octets(), value, never_indexed: first & 0x10 != 0 });
                }
            }
            at_start = false;
        }
        Ok(())
    }

    fn literal<'s, 'a: 's>(
        &self,
        input: &mut Input<'a>,
        prefix_bits: u32,
        scratch: &'s mut Scratch,
    ) -> Result<(NewName<'s>, &'s [u8]), DecodeError> {
        let name = match input.integer(prefix_bits)? {
            0 => NewName::Literal(input.string(&mut scratch.name)?),
            index => NewName::Known(self.table.name(index).ok_or(DecodeError::Index)?),
        };
        Ok((name, input.string(&mut scratch.value)?))
    }

    /// What the dynamic table holds now, by the measure of RFC 7541.
    #[cfg(test)]
    pub fn table_bytes(&self) -> usize {
        self.table.bytes()
    }
}

/// Where Huffman strings are decoded to; nothing is allocated for a block that has none.
#[derive(Debug, Default)]
struct Scratch {
    name: Vec<u8>,
    value: Vec<u8>,
}

/// What is left of a block.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// An integer whose first bits are the last `prefix_bits` of the next octet (RFC 7541, section 5.1).
    fn integer(&mut self, prefix_bits: u32) -> Result<usize, DecodeError> {
        let mask = (1_u32 << prefix_bits) - 1;
        let mut value = u64::from(u32::from(self.octet()?) & mask);
        if value < u64::from(mask) {
            return Ok(value as usize);
        }
        // Four octets carry 28 bits, four thousand times what a block may hold. Their sum fits 64 bits, and 32 as well.
        for shift in [0, 7, 14, 21] {
            let octet = self.octet()?;
            value += u64::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                return Ok(value as usize);
            }
        }
        Err(DecodeError::Integer)
    }

    /// A string (RFC 7541, section 5.2), in place or decoded to `scratch`.
    fn string<'s>(&mut self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], DecodeError>
    where
        'a: 's,
    {
        let huffman = self.0.first().is_some_and(|octet| octet & 0x80 != 0);
        let length = self.integer(7)?;
        let (octets, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        if !huffman {
            return Ok(octets);
        }
        scratch.clear();
        huffman::decode(octets, scratch)?;
        Ok(scratch)
    }

    fn octet(&mut self) -> Result<u8, DecodeError> {
        let (&octet, rest) = self.0.split_first().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(octet)
    }
}

#[cfg(test)]
mod tests;

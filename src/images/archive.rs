//! Compressed files: told by their first bytes, unpacked within bounds.

use super::{
    error::{BuildError, io_error},
    layer::Content,
};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{BufReader, Read, Write},
    path::Path,
};

/// Most bytes that one archive may unpack to.
const MAX_UNPACKED: u64 = 64 << 30;
/// An archive that grows by more than this, beyond a gibibyte, is a bomb.
const MAX_RATIO: u64 = 1000;

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// A tar archive as it is.
    Tar,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// bzip2, which the builtin builder does not read.
    Bzip2,
    /// xz, which the builtin builder does not read.
    Xz,
    /// None of these.
    None,
}

/// How content is packed, by its first bytes.
///
/// # Errors
/// An error of reading.
pub fn packing(content: &Content) -> std::io::Result<Packing> {
    let mut head = Vec::new();
    content.reader()?.take(512).read_to_end(&mut head)?;
    Ok(match head.as_slice() {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
        [b'B', b'Z', b'h', ..] => Packing::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
        _ if head.get(257..262) == Some(b"ustar") => Packing::Tar,
        _ => Packing::None,
    })
}

/// Unpacks a file to `to`; the digest of what came out.
///
/// # Errors
/// [`BuildError`] when it is broken, unpacks to too much, or is packed in a way that is not read.
pub fn unpack(from: &Path, packing: Packing, to: &Path) -> Result<String, BuildError> {
    unpack_within(from, packing, to, 1 << 30)
}

/// As [`unpack`]; `allowance` bytes are allowed whatever the ratio.
fn unpack_within(from: &Path, packing: Packing, to: &Path, allowance: u64) -> Result<String, BuildError> {
    let file = File::open(from).map_err(io_error("open", from))?;
    let packed = file.metadata().map_err(io_error("stat", from))?.len();
    let file = BufReader::with_capacity(256 << 10, file);
    let mut reader: Box<dyn Read> = match packing {
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Packing::Zstd => Box::new(zstd::Decoder::with_buffer(file).map_err(io_error("read", from))?),
        Packing::Tar | Packing::None => Box::new(file),
        Packing::Bzip2 => return Err(BuildError::Unsupported { what: "an archive packed by bzip2".into() }),
        Packing::Xz => return Err(BuildError::Unsupported { what: "an archive packed by xz".into() }),
    };
    let limit = MAX_UNPACKED.min(allowance + packed.saturating_mul(MAX_RATIO));
    let mut out = File::create(to).map_err(io_error("create", to))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0u64;
    loop {
        let read = reader.read(&mut buffer).map_err(|e| BuildError::malformed(from.display(), e))?;
        if read == 0 {
            break;
        }
        total += read as u64;
        if total > limit {
            return Err(BuildError::malformed(from.display(), format!("unpacks to more than {limit} bytes")));
        }
        hasher.update(&buffer[..read]);
        out.write_all(&buffer[..read]).map_err(io_error("write", to))?;
    }
    Ok(format!("sha256:{}", hex::encode(hasher.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_refused_and_an_archive_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (packed, out) = (dir.path().join("packed"), dir.path().join("out"));
        let zeros = vec![0; 8 << 20];
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&zeros).unwrap();
        std::fs::write(&packed, encoder.finish().unwrap()).unwrap();
        // Zeros pack to a thousandth and a little less.
        let error = unpack_within(&packed, Packing::Gzip, &out, 0).unwrap_err();
        assert!(error.to_string().contains("unpacks to more than"), "{error}");
        let digest = unpack(&packed, Packing::Gzip, &out).unwrap();
        assert_eq!(digest, super::super::store::digest_of(&zeros));
        assert_eq!(packing(&Content::Disk { path: packed, offset: 0, size: 100 }).unwrap(), Packing::Gzip);
    }
}

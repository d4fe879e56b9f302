//! Compressed kernels and modules, unpacked.

use std::io::Read;

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use lz4_flex::frame::FrameDecoder as Lz4Decoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;

/// Takes the uncompressed kernel out of a bzImage. A machine that boots it directly does not spend time on unpacking.
pub(super) fn kernel(image: &[u8]) -> Result<Vec<u8>> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    let payload = payload(image)?;
    // The kernel's size follows what was compressed by anything but gzip, whose format has it.
    let end = if payload.starts_with(GZIP) { payload.len() } else { payload.len().saturating_sub(4) };
    let vmlinux = decompressed(&payload[..end])?;
    if !vmlinux.starts_with(b"\x7fELF") {
        bail!("what is packed in it is no ELF file");
    }
    Ok(vmlinux)
}

/// The compressed kernel in a bzImage, by the setup header of Linux's x86 boot protocol 2.08.
fn payload(image: &[u8]) -> Result<&[u8]> {
    const SETUP_SECTORS: usize = 0x1f1;
    const MAGIC: usize = 0x202;
    const PAYLOAD_OFFSET: usize = 0x248;
    const PAYLOAD_LENGTH: usize = 0x24c;
    const SECTOR: usize = 512;
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    if image.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        bail!("not a bzImage");
    }
    let sectors = image.get(SETUP_SECTORS).map_or(0, |n| usize::from(*n));
    // 0 stands for 4, of the time of floppies; the boot sector comes on top.
    let start = (if sectors == 0 { 4 } else { sectors } + 1) * SECTOR;
    let found = word(PAYLOAD_OFFSET).zip(word(PAYLOAD_LENGTH)).and_then(|(offset, length)| {
        let begin = start.checked_add(offset)?;
        image.get(begin..begin.checked_add(length)?)
    });
    found.context("a bzImage that ends before its payload")
}

/// What has been compressed by any of the ways that kernels and modules are. Something else is taken as it is.
pub(super) fn decompressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    match bytes {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            XzReader::new(bytes, false).read_to_end(&mut out).context("xz")?
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = StreamingDecoder::new(bytes).context("zstd")?;
            decoder.read_to_end(&mut out).context("zstd")?
        }
        [0x1f, 0x8b, ..] => GzDecoder::new(bytes).read_to_end(&mut out).context("gzip")?,
        // The older of LZ4's two formats, in which the kernel is.
        [0x02, 0x21, 0x4c, 0x18, ..] => Lz4Decoder::new(bytes).read_to_end(&mut out).context("LZ4")?,
        _ => return Ok(bytes.to_vec()),
    };
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write as _;

    fn bz_image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 3 * 512 + 16];
        image[0x1f1] = 2;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).expect("short").to_le_bytes());
        image.extend(payload);
        image.extend(b"what follows");
        image
    }

    #[test]
    fn the_kernel_is_found_in_its_image() {
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(b"\x7fELF and so on").expect("into memory");
        let payload = gz.finish().expect("into memory");
        assert_eq!(kernel(&bz_image(&payload)).expect("well formed"), b"\x7fELF and so on");
        assert!(kernel(&bz_image(b"no ELF file")).is_err());
        assert!(kernel(b"MZ").is_err());
        let mut short = bz_image(&payload);
        short.truncate(3 * 512 + 20);
        assert!(kernel(&short).is_err());
    }

    #[test]
    fn what_is_not_compressed_stays() {
        assert_eq!(decompressed(b"\x7fELF").expect("as it is"), b"\x7fELF");
    }
}

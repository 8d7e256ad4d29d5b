//! Pictures inside a page.

use dbb_datasets::Thumbnail;

use super::page::Html;

/// A picture with what it shows, in words, and a caption.
pub fn picture(image: &Thumbnail, shows: &str, caption: &Html) -> Html {
    let Thumbnail { height, width, media_type, bytes } = image;
    let (shows, data) = (Html::from(shows), base64(bytes));
    Html::raw(format!(
        "<figure><img src=\"data:{media_type};base64,{data}\" width=\"{width}\" height=\"{height}\" \
         alt=\"{shows}\"/><figcaption>{caption}</figcaption></figure>\n"
    ))
}

/// The place of a picture that is missing.
pub fn no_picture(caption: &Html) -> Html {
    Html::raw(format!(
        "<figure><span class=\"gone\">cannot be read</span><figcaption>{caption}</figcaption></figure>\n"
    ))
}

/// Pictures side by side, as many as the width has room for.
pub fn pictures(pictures: Html) -> Html {
    Html::raw(format!("<div class=\"pictures\">\n{pictures}</div>\n"))
}

/// Bytes as text (RFC 4648, section 4).
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            text.push(if i > three.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_well_formed;
    use super::*;

    /// The vectors of RFC 4648, section 10.
    #[test]
    fn bytes_are_written_as_the_standard_says() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn a_picture_says_what_it_shows() {
        let bytes = vec![1, 2, 3];
        let image = Thumbnail { height: 2, width: 3, media_type: "image/png", bytes };
        let html = picture(&image, "a \"<cat>\"", &"cat".into()).to_string();
        assert_well_formed(&html);
        assert!(html.contains("src=\"data:image/png;base64,AQID\" width=\"3\" height=\"2\""));
        assert!(html.contains("alt=\"a &quot;&lt;cat&gt;&quot;\"/>"), "{html}");
        assert_well_formed(&no_picture(&"cat".into()).to_string());
    }
}

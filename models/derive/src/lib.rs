//! `#[derive(Reparameterize)]` of the crate `dbb-models`, which re-exports it beside the trait and
//! documents it there.

mod expand;

use proc_macro::TokenStream;

/// Folds the fields of a struct or enum one by one.
#[proc_macro_derive(Reparameterize, attributes(reparam))]
pub fn derive_reparameterize(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

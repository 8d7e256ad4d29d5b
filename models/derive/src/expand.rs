//! From a type to its implementation of `Reparameterize`.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Index, Meta, Result, parse_quote};

/// The implementation of the trait.
pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    refuse_attribute(&input.attrs)?;
    let mut fields = Vec::new();
    let arms: Vec<Arms> = match &input.data {
        Data::Struct(data) => vec![arms(&quote!(Self), &data.fields, &mut fields)?],
        Data::Enum(data) => data
            .variants
            .iter()
            .map(|variant| {
                refuse_attribute(&variant.attrs)?;
                let name = &variant.ident;
                arms(&quote!(Self::#name), &variant.fields, &mut fields)
            })
            .collect::<Result<_>>()?,
        Data::Union(data) => {
            return Err(Error::new(
                data.union_token.span,
                "a union has no fields to fold one by one; derive `Reparameterize` on a struct \
                 or an enum",
            ));
        }
    };

    let name = &input.ident;
    let mut generics = input.generics.clone();
    for param in generics.type_params_mut() {
        for treatment in [Treatment::Fold, Treatment::Keep] {
            let concerns = |field: &TypedField| {
                field.treatment == treatment && mentions(&field.ty, &param.ident)
            };
            if fields.iter().any(concerns) {
                let bound = treatment.bound();
                param.bounds.push(parse_quote!(#bound));
            }
        }
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let fold = arms.iter().map(|arms| &arms.fold);
    let visit = arms.iter().map(|arms| &arms.visit);
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics ::dbb_models::Reparameterize for #name #type_generics #where_clause {
            fn reparameterize(&self) -> Self {
                // By value, for enums without variants.
                match *self {
                    #(#fold)*
                }
            }

            fn each_unit(
                &mut self,
                change: &mut dyn ::core::ops::FnMut(&mut ::dbb_models::blocks::ConvUnit),
            ) {
                let _ = &change;
                match *self {
                    #(#visit)*
                }
            }
        }
    })
}

/// A field's type, and what happens to its value.
struct TypedField {
    ty: TokenStream,
    treatment: Treatment,
}

/// What happens to a field.
#[derive(Clone, Copy, PartialEq)]
enum Treatment {
    /// Its own inference form.
    Fold,
    /// A clone.
    Keep,
}

impl Treatment {
    fn of(attrs: &[Attribute]) -> Result<Self> {
        let mut treatment = Self::Fold;
        for attr in attrs.iter().filter(|attr| attr.path().is_ident("reparam")) {
            match &attr.meta {
                Meta::List(list) if list.tokens.to_string() == "keep" => treatment = Self::Keep,
                meta => {
                    return Err(Error::new_spanned(
                        meta,
                        "the attribute has one form, `#[reparam(keep)]`: the field is cloned as \
                         it is",
                    ));
                }
            }
        }
        Ok(treatment)
    }

    /// What the type of the field has to be.
    fn bound(self) -> TokenStream {
        match self {
            Self::Fold => quote!(::dbb_models::Reparameterize),
            Self::Keep => quote!(::core::clone::Clone),
        }
    }

    /// The new value of a field that is bound by reference. An error about the type of the field
    /// points at it.
    fn apply(self, ty: &syn::Type, value: &Ident) -> TokenStream {
        let bound = self.bound();
        match self {
            Self::Fold => quote_spanned!(ty.span()=> <#ty as #bound>::reparameterize(#value)),
            Self::Keep => quote_spanned!(ty.span()=> <#ty as #bound>::clone(#value)),
        }
    }
}

/// What the methods do with a struct or a variant.
struct Arms {
    /// Of `reparameterize`.
    fold: TokenStream,
    /// Of `each_unit`.
    visit: TokenStream,
}

/// Takes a struct or a variant apart, with every field by name or index; builds it anew from
/// folded fields, and visits those that may hold units.
fn arms(path: &TokenStream, fields: &Fields, seen: &mut Vec<TypedField>) -> Result<Arms> {
    let (mut patterns, mut values) = (Vec::new(), Vec::new());
    let (mut visited, mut visits) = (Vec::new(), Vec::new());
    for (index, field) in fields.iter().enumerate() {
        let member = match &field.ident {
            Some(name) => name.to_token_stream(),
            None => Index::from(index).to_token_stream(),
        };
        let treatment = Treatment::of(&field.attrs)?;
        let binding = format_ident!("field_{index}");
        let value = treatment.apply(&field.ty, &binding);
        patterns.push(quote!(#member: ref #binding));
        values.push(quote!(#member: #value));
        if treatment == Treatment::Fold {
            let (ty, bound) = (&field.ty, treatment.bound());
            visited.push(quote!(#member: ref mut #binding));
            // The type may come from a macro of the user's, where the name would be another one.
            let change = format_ident!("change");
            visits.push(quote_spanned!(ty.span()=> <#ty as #bound>::each_unit(#binding, #change);));
        }
        seen.push(TypedField { ty: field.ty.to_token_stream(), treatment });
    }
    Ok(Arms {
        fold: quote!(#path { #(#patterns),* } => #path { #(#values),* },),
        visit: quote!(#path { #(#visited,)* .. } => { #(#visits)* }),
    })
}

/// Rust accepts a derive's attribute in places where this derive would not read it.
fn refuse_attribute(attrs: &[Attribute]) -> Result<()> {
    match attrs.iter().find(|attr| attr.path().is_ident("reparam")) {
        Some(attr) => Err(Error::new_spanned(
            &attr.meta,
            "`#[reparam(keep)]` belongs on a single field, not on a whole type or variant",
        )),
        None => Ok(()),
    }
}

/// Whether a type mentions a type parameter.
fn mentions(ty: &TokenStream, param: &Ident) -> bool {
    ty.clone().into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == *param,
        TokenTree::Group(group) => mentions(&group.stream(), param),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::expand;

    /// The body of the derived method, on one line.
    fn derived(item: proc_macro2::TokenStream) -> String {
        expand(&syn::parse2(item).expect("an item")).expect("an implementation").to_string()
    }

    fn error(item: proc_macro2::TokenStream) -> String {
        expand(&syn::parse2(item).expect("an item")).expect_err("an error").to_string()
    }

    /// Whether the expansion holds the tokens.
    #[track_caller]
    fn assert_holds(expansion: &str, tokens: proc_macro2::TokenStream) {
        assert!(expansion.contains(&tokens.to_string()), "no {tokens} in {expansion}");
    }

    #[test]
    fn a_struct_is_taken_apart_whole() {
        let expansion = derived(quote! {
            struct Net { conv: ConvUnit, #[reparam(keep)] classes: usize }
        });
        assert_holds(&expansion, quote!(impl ::dbb_models::Reparameterize for Net));
        assert_holds(&expansion, quote!(Self { conv: ref field_0, classes: ref field_1 } =>));
        assert_holds(
            &expansion,
            quote!(conv: <ConvUnit as ::dbb_models::Reparameterize>::reparameterize(field_0)),
        );
        assert_holds(&expansion, quote!(classes: <usize as ::core::clone::Clone>::clone(field_1)));
    }

    #[test]
    fn tuples_units_and_variants_have_the_same_form() {
        let expansion = derived(quote! { struct Pair(ConvUnit, Linear); });
        assert_holds(&expansion, quote!(Self { 0: ref field_0, 1: ref field_1 } =>));
        assert_holds(&derived(quote! { struct Unit; }), quote!(Self {} => Self {},));

        let expansion =
            derived(quote! { enum Stem { Plain(ConvUnit), Named { conv: ConvUnit }, None } });
        assert_holds(&expansion, quote!(Self::Plain { 0: ref field_0 } => Self::Plain));
        assert_holds(&expansion, quote!(Self::Named { conv: ref field_0 } => Self::Named));
        assert_holds(&expansion, quote!(Self::None {} => Self::None {},));
    }

    #[test]
    fn parameters_are_bound_by_what_happens_to_them() {
        let expansion = derived(quote! {
            struct Wrap<'a, A: Module, B, C, const N: usize> where A: Sync {
                inner: Vec<A>,
                #[reparam(keep)]
                kept: (&'a B, [u8; N]),
                #[reparam(keep)]
                none: usize,
            }
        });
        assert_holds(
            &expansion,
            quote! {
                impl<'a, A: Module + ::dbb_models::Reparameterize, B: ::core::clone::Clone, C,
                     const N: usize>
                ::dbb_models::Reparameterize for Wrap<'a, A, B, C, N> where A: Sync
            },
        );
    }

    #[test]
    fn other_forms_of_the_attribute_are_refused() {
        for attribute in [
            quote!(#[reparam]),
            quote!(#[reparam()]),
            quote!(#[reparam(skip)]),
            quote!(#[reparam(keep, keep)]),
            quote!(#[reparam(keep(always))]),
            quote!(#[reparam(keep = true)]),
            quote!(#[reparam = "keep"]),
        ] {
            let text = error(quote! { struct Net { conv: ConvUnit, #attribute classes: usize } });
            assert!(text.contains("has one form, `#[reparam(keep)]`"), "{attribute}: {text}");
        }
    }

    #[test]
    fn the_attribute_is_refused_where_it_says_nothing() {
        let on_type = error(quote! { #[reparam(keep)] struct Net { conv: ConvUnit } });
        let on_variant = error(quote! { enum Stem { #[reparam(keep)] Plain(ConvUnit) } });
        assert!(on_type.contains("belongs on a single field"), "{on_type}");
        assert_eq!(on_type, on_variant);
    }

    #[test]
    fn unions_are_refused() {
        let text = error(quote! { union Bits { a: u32, b: f32 } });
        assert!(text.contains("on a struct or an enum"), "{text}");
    }
}

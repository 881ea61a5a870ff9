//! Writes accounts as CSV.

use bursar_core::{Account, Currencies, Currency, CurrencyIndex, CustomerId, Decimals, Sum};
use std::io::{self, Write};

/// Rows are gathered to this many bytes before they are written.
const BUFFER_BYTES: usize = 64 * 1024;

/// Writes accounts in the order given, under the header `client,available,held,total,locked`; a column
/// `currency` follows `client` if the ledger has several. Amounts have all the decimals of their currency,
/// `locked` is `true` or `false`.
///
/// Gathers rows itself and flushes `output` at the end; no allocation per row. Returns how many accounts it wrote.
pub fn write_accounts<W: Write>(
    mut output: W,
    currencies: &Currencies,
    accounts: impl IntoIterator<Item = (CustomerId, CurrencyIndex, Account, bool)>,
) -> io::Result<u64> {
    let several = currencies.len() > 1;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES + 512);
    let currency_column = if several { ",currency" } else { "" };
    writeln!(buffer, "client{currency_column},available,held,total,locked")?;
    let mut account_count = 0;
    for (customer, currency, account, locked) in accounts {
        write_id(&mut buffer, customer)?;
        buffer.push(b',');
        if several {
            write!(buffer, "{},", currencies.get(currency).map_or("", Currency::code))?;
        }
        let Account { available, held } = account;
        // Not the account's own total, which is none where an account is broken: what is shown adds up always.
        let total = Sum::ZERO.plus(available).plus(held);
        let decimals = currencies.decimals(currency);
        for sum in [Sum::ZERO.plus(available), Sum::ZERO.plus(held), total] {
            write_sum(&mut buffer, sum, decimals)?;
            buffer.push(b',');
        }
        buffer.extend_from_slice(if locked { b"true\n" } else { b"false\n" });
        account_count += 1;
        if buffer.len() >= BUFFER_BYTES {
            output.write_all(&buffer)?;
            buffer.clear();
        }
    }
    output.write_all(&buffer)?;
    output.flush()?;
    Ok(account_count)
}

/// As its `Display`, which goes a long way for each number.
fn write_id(buffer: &mut Vec<u8>, customer: CustomerId) -> io::Result<()> {
    match u64::try_from(customer.bits()) {
        Ok(number) => write_number(buffer, number, 0),
        Err(_) => write!(buffer, "{customer}")?,
    }
    Ok(())
}

/// As its `Display`.
fn write_sum(buffer: &mut Vec<u8>, sum: Sum, decimals: Decimals) -> io::Result<()> {
    let Ok(magnitude) = u64::try_from(sum.steps().unsigned_abs()) else {
        return write!(buffer, "{}", sum.display(decimals));
    };
    if sum.steps() < 0 {
        buffer.push(b'-');
    }
    write_number(buffer, magnitude, usize::from(decimals.count()));
    Ok(())
}

/// A number whose last digits, so many, come behind a point.
fn write_number(buffer: &mut Vec<u8>, number: u64, decimals: usize) {
    // 20 digits and a point; or more decimals than digits, of which there are at most nine.
    let mut text = [b'0'; 24];
    let (mut rest, mut at, mut digit_count) = (number, text.len(), 0);
    while rest > 0 || digit_count <= decimals {
        if digit_count == decimals && decimals > 0 {
            at -= 1;
            text[at] = b'.';
        }
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        digit_count += 1;
    }
    buffer.extend_from_slice(&text[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_core::Amount;
    use proptest::prelude::*;

    fn account(available: i64, held: i64) -> Account {
        Account { available: Amount::from_steps(available), held: Amount::from_steps(held) }
    }

    fn written(currencies: &Currencies, accounts: &[(CustomerId, CurrencyIndex, Account, bool)]) -> String {
        let mut output = Vec::new();
        let account_count = write_accounts(&mut output, currencies, accounts.iter().copied()).unwrap();
        assert_eq!(account_count, accounts.len() as u64);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn one_currency_needs_no_column() {
        let uuid = CustomerId::new(0x6ba7_b810_9dad_11d1_80b4_00c0_4fd4_30c8);
        let accounts = [
            (CustomerId::new(1), CurrencyIndex(0), account(15_000, 0), false),
            (uuid, CurrencyIndex(0), account(-5, 10_000), true),
        ];
        let expected = "client,available,held,total,locked\n1,1.5000,0.0000,1.5000,false\n\
                        6ba7b810-9dad-11d1-80b4-00c04fd430c8,-0.0005,1.0000,0.9995,true\n";
        assert_eq!(written(&Currencies::default(), &accounts), expected);
    }

    #[test]
    fn several_currencies_have_their_own_decimals() {
        let currency = |code, decimals| Currency::new(code, Decimals::new(decimals).unwrap()).unwrap();
        let currencies = Currencies::named(vec![currency("EUR", 2), currency("JPY", 0)]).unwrap();
        let accounts = [
            (CustomerId::new(7), CurrencyIndex(0), account(150, 50), false),
            (CustomerId::new(7), CurrencyIndex(1), account(i64::MAX, i64::MAX), false),
        ];
        let expected = "client,currency,available,held,total,locked\n7,EUR,1.50,0.50,2.00,false\n\
                        7,JPY,9223372036854775807,9223372036854775807,18446744073709551614,false\n";
        assert_eq!(written(&currencies, &accounts), expected);
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_they_are_displayed(
            steps in prop_oneof![-20_000i128..20_000, (any::<i64>(), any::<i64>()).prop_map(|(a, b)| i128::from(a) + i128::from(b))],
            id in prop_oneof![0u128..200, any::<u64>().prop_map(u128::from), any::<u128>()],
        ) {
            for count in 0..=9 {
                let decimals = Decimals::new(count).unwrap();
                let mut buffer = Vec::new();
                write_sum(&mut buffer, Sum::from_steps(steps), decimals).unwrap();
                prop_assert_eq!(String::from_utf8(buffer).unwrap(), Sum::from_steps(steps).display(decimals).to_string());
            }
            let mut buffer = Vec::new();
            write_id(&mut buffer, CustomerId::new(id)).unwrap();
            prop_assert_eq!(String::from_utf8(buffer).unwrap(), CustomerId::new(id).to_string());
        }
    }

    #[test]
    fn many_accounts_pass_through_one_buffer() {
        let accounts: Vec<_> =
            (0..10_000).map(|id| (CustomerId::new(id), CurrencyIndex(0), account(1, 0), false)).collect();
        assert_eq!(written(&Currencies::default(), &accounts).lines().count(), 10_001);
    }
}

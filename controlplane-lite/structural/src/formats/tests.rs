//! Texts that are of a format and that are not, from
//! `strfmt/{default,date,time,duration,bson,kubernetes-extensions}_test.go` and `govalidator/validator_test.go`
//! upstream.

use super::*;

/// Checks texts of a format.
fn check(name: &str, of_it: &[&str], not: &[&str]) {
    let format = Format::parse(name, Kind::String).expect("the format is known");
    for text in of_it {
        assert!(format.accepts(text), "{text:?} is of {name}");
    }
    for text in not {
        assert!(!format.accepts(text), "{text:?} is not of {name}");
    }
}

#[test]
fn host_names() {
    let long = "a".repeat(256);
    let label = format!("x.y.{}", "a".repeat(64));
    check(
        "hostname",
        &[
            "somewhere.com",
            "888.com",
            "a.b.c.d.e.com",
            "1.2.3.4.com",
            "1wwworg.example.com",
            "xn--bcher-kva.example.com",
            "☁→❄→☃→☀→☺→☂→☹→✝.ws",
            "www.example.ôlà",
            "ôlà.ôlà.ôlà",
            "ex$ample",
            "localhost",
            "x",
            "x-y",
            "a.b.c.dot",
            "ex=ample.com",
            "<foo>",
            "www.詹姆斯.org",
            "www.詹姆斯.london",
        ],
        &[
            "somewhere.com!",
            "user@email.domain",
            "1.1.1.1",
            "www.example-.org",
            "www.--example.org",
            "-www.example.org",
            "www-",
            "-www",
            "www.ex ample.org",
            "_www.example.org",
            "www.example_underscored.org",
            "www.詹姆斯.x",
            "a.b.c.d",
            "-xyz",
            "xyz-",
            "x.",
            "a.b.c.dot-",
            &long,
            &label,
        ],
    );
}

#[test]
fn addresses() {
    check(
        "email",
        &[
            "somebody@somewhere.com",
            "A <a@b.c>",
            "\"a b\"@c",
            "a@[127.0.0.1]",
            "blah@gmail.com (x)",
            " <a@b> (x) ",
            "a@b<c@d>",
            "a@b (x)<c@d>",
            "Doe, John (him) <j@d>",
            "a. .b; \"c, d\" <a@ b>",
        ],
        &[
            "somebody@somewhere@com",
            "somebody",
            "",
            "@b",
            "a@",
            "a..b@c",
            "a b@c",
            "<a@b",
            "a@b>",
            "a @b",
            "\"\"@b",
            "<a@b >",
            "a: <a@b>",
            "a@b <c@d> e",
            "a@b, c@d",
        ],
    );
    check(
        "ipv4",
        &["127.0.0.1", "192.168.1.1", "192.168.1.01", "::ffff:1.2.3.4"],
        &["198.168.254.2.2", "1.2.3", "::1", "256.1.1.1"],
    );
    check("ipv6", &["::1", "::2", "2001:db8::1"], &["127.0.0.1", "::g", "fe80::1%eth0"]);
    check(
        "cidr",
        &["192.0.2.1/24", "192.0.02.1/24", "2001:db8:a0b:12f0::1/32"],
        &["198.168.254.2", "2001:db8:a0b:12f0::1", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/+1"],
    );
    check(
        "mac",
        &["01:02:03:04:05:06", "01-02-03-04-05-06", "0102.0304.0506", "01:02:03:04:05:06:07:08"],
        &["01:02:03:04:05", "01:02:03:04:05:0g", "010203040506", ""],
    );
    check(
        "uri",
        &[
            "http://somewhere.com",
            "http://user:pass@host:80/path?a=b",
            "/path",
            "urn:a:b",
            "http://[::1]:80/",
            "*",
            "http://a/%20",
            "mailto:a@b",
            "http://[fe80::1%25en0]/",
        ],
        &[
            "",
            "somewhere.com",
            "http://a:b",
            "http://[::1",
            "http://a/%2",
            "a b",
            "http://a b/",
            ":a",
            "?a",
            "http://a\n",
        ],
    );
}

#[test]
fn numbers_and_colours() {
    check("isbn", &["0321751043", "978-0321751041", "0-321-75104-3"], &["836217463", ""]);
    check("isbn10", &["0321751043", "097522980X"], &["836217463", "0321751044"]);
    check("isbn13", &["978-0321751041"], &["978-0321751042"]);
    check(
        "creditcard",
        &["4111-1111-1111-1111", "4012-8888-8888-1881", "375556917985515", "36050234196908"],
        &["9999-9999-9999-999", "4111-1111-1111-1112", ""],
    );
    check("ssn", &["111-11-1111", "999 99 9999"], &["999 99 999", "111111111"]);
    check("hexcolor", &["#FFFFFF", "#000000", "fff"], &["#fffffffz", "#ffff", ""]);
    check(
        "rgbcolor",
        &["rgb(255,255,255)", "rgb(0, 0 ,0)"],
        &["rgb(300,0,0)", "rgb(0,0)", "rgb(00,0,0)", "rgb(1,2,3,4)"],
    );
    check("byte", &["ZWxpemFiZXRocG9zZXk=", "TQ=="], &["ZWxpemFiZXRocG9zZXk", "", "TQ=", "T==="]);
    check("bsonobjectid", &["507f1f77bcf86cd799439011"], &["507f1f77bcf86cd79943901", "507f1f77bcf86cd79943901g"]);
    check("password", &["", "super secret"], &[]);
}

#[test]
fn identifiers() {
    let plain = "a8098c1a-f86e-11da-bd1a-00112444be1e";
    check(
        "uuid",
        &[plain, "A8098C1AF86E11DABD1A00112444BE1E"],
        &["not-a-uuid", "a8098c1a-f86e-11da-bd1a-00112444be1", ""],
    );
    check("uuid3", &["bcd02e22-68f0-3046-a512-327cca9def8f"], &["not-a-uuid", plain]);
    check("uuid4", &["025b0d74-00a2-4048-bf57-227c5111bb34"], &["not-a-uuid", "025b0d74-00a2-4048-7f57-227c5111bb34"]);
    check("uuid5", &["886313e1-3b8a-5372-9b90-0c9aee199e5d"], &["not-a-uuid", plain]);
    let (short, long) = ("a".repeat(63), "a".repeat(253));
    let (past_short, past_long) = ("a".repeat(64), "a".repeat(254));
    check("k8s-short-name", &["a", "1-a", &short], &["", "a-", "A", "a.b", &past_short]);
    check("k8s-long-name", &["a", "a.b-c", &long], &["", "a.-", ".a", "a..b", &past_long]);
}

#[test]
fn times() {
    check(
        "date",
        &["2017-12-22", "2000-02-29", "2400-02-29"],
        &[
            "2017-1-1",
            "17-13-22",
            "2017-02-29",
            "1900-02-29",
            "2100-02-29",
            "2017-13-22",
            "2017-12-32",
            "20171-12-32",
            "YYYY-MM-DD",
            "20-17-2017",
            "2017-12-22T01:02:03Z",
            "",
        ],
    );
    check(
        "date-time",
        &[
            "2014-12-15T08:00:00.000Z",
            "2011-08-18T19:03:37.000000000+01:00",
            "2014-12-15t19:30:20z",
            "2014-12-15T19:30:20.5Z",
        ],
        &[
            "2014-12-15",
            "2014-12-15T24:00:00Z",
            "2014-12-15T23:60:00Z",
            "2014-12-15T19:30:20",
            "2014-12-15T19:30:20.Z",
            "2014-12-15T19:30:20\n5Z",
            "yada",
        ],
    );
    check(
        "duration",
        &[
            "0ms",
            "1ns",
            "1µs",
            "1hr",
            "1d",
            "1wk",
            "1nanoseconds",
            "1micros",
            "1  milliseconds",
            "1 second",
            "1min",
            "1 week",
            "1h2m3.5s",
            "-1.5h",
            "0",
            "+5s",
            ".5s",
            "45 weeks",
        ],
        &[
            "yada",
            "three week",
            "9999999999999999999999999999999999999999999999999999999 weeks",
            "12 parsecs",
            "12 y",
            "45 wekk",
            "",
            ".",
        ],
    );
}

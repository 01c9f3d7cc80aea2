//! Pictures of one small graph, as a person read them.

use super::{View, dot, mermaid, svg, text};
use crate::graph::{Edge, EdgeSource, GraphBuilder};

fn view() -> View {
    let names = ["build", "test \"all\"", "lint", "clean"].map(Into::into).to_vec();
    let mut builder = GraphBuilder::new(names, 3);
    let declared = Edge { source: EdgeSource::Declared, reads_status: false };
    let referenced = Edge { source: EdgeSource::Referenced, reads_status: false };
    builder.wait_for(1, &mut [(0, declared), (2, referenced)]);
    View::of("brief <1>", &builder.finish(), &|_| "run".to_owned(), &|number| {
        (number == 0).then(|| "succeeded".to_owned())
    })
}

#[test]
fn text_says_where_each_arrow_comes_from() {
    let expect = "brief <1>\n\
                  ├─ build (run, succeeded) *\n\
                  ├─ lint (run)\n\
                  ├─ test \"all\" (run) *\n\
                  │  ├─ after build (depends)\n\
                  │  └─ after lint (reference)\n\
                  └─ clean (run) [finally]\n\
                  * critical path\n";
    assert_eq!(text(&view()), expect);
}

#[test]
fn each_picture_holds_every_step_and_arrow_and_escapes_what_must_be() {
    let check = |picture: String, expect: &[&str]| {
        for part in expect {
            assert!(picture.contains(part), "{part} is not in\n{picture}");
        }
    };
    check(
        mermaid(&view()),
        &[
            "n0 --> n1",
            "n2 -.-> n1",
            "test #quot;all#quot;",
            "class n0,n1 critical",
            "linkStyle 0 ",
            "n3([",
            "&lt;1&gt;",
        ],
    );
    check(
        dot(&view()),
        &["n0 -> n1 [style=\"solid,bold\"]", "n2 -> n1 [style=\"dashed\"]", "test \\\"all\\\"", "style=\"rounded\""],
    );
    check(svg(&view()), &["brief &lt;1&gt;", "stroke-dasharray", "test &quot;all&quot;", "run · succeeded", "</svg>"]);
}

#[test]
fn an_empty_graph_has_pictures_too() {
    let empty = View { title: "empty".to_owned(), ..View::default() };
    for picture in [text(&empty), mermaid(&empty), dot(&empty), svg(&empty)] {
        assert!(picture.contains("empty"));
    }
}

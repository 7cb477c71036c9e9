use serde_json::json;

use super::*;

#[test]
fn a_line_names_the_gates_that_do_not_pass() {
    let release = Release::read(json!({
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"target": {"name": "orders"}},
        "status": {
            "phase": "Baking", "message": "orders-3: stage 2/5 at 5%",
            "gates": [
                {"gate": "errors", "value": "3.2%", "limit": "<= 1%", "verdict": "Inconclusive", "restsOn": "x"},
                {"gate": "latency", "value": "1%", "limit": "P95 < 200ms", "verdict": "Pass", "restsOn": "x"},
            ],
        },
    }));
    let view = status::view(&release, Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(line(&view), "Baking orders-3: stage 2/5 at 5%; errors Inconclusive (3.2% of <= 1%)");
}

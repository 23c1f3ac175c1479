package app

import _ "embed"

//go:embed example.yaml
var example []byte

// Example is a commented configuration that is correct as it stands (`config init`).
func Example() []byte { return append([]byte(nil), example...) }

package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Hooks is the listener for functions and events that others send.
type Hooks struct {
	// Listen is off when it is empty.
	Listen string    `key:"listen"`
	TLS    ServerTLS `key:"tls"`
	// SigningKeys verify ZITADEL-Signature; one of them has to.
	SigningKeys []Secret `key:"signing_keys"`
	// SigningKeyFiles hold one more each.
	SigningKeyFiles []string `key:"signing_key_files"`
	// Tokens are bearer tokens that do instead of a signature.
	Tokens []HookToken `key:"tokens"`
	// FunctionTimeout bounds all targets of a function together.
	FunctionTimeout time.Duration `key:"function_timeout"`
	// Functions may be called, and conditions may name them, beside ZITADEL's.
	Functions    []string `key:"functions"`
	MaxBodyBytes int64    `key:"max_body_bytes"`
}

// HookToken is one sender. In YAML it may be the token alone.
type HookToken struct {
	Name      string `key:"name"`
	Token     Secret `key:"token"`
	TokenFile string `key:"token_file"`
}

var (
	hookTokenType  = reflect.TypeFor[HookToken]()
	secretListType = reflect.TypeFor[[]Secret]()
	functionName   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
)

// Keys returns the keys that verify signatures.
func (h Hooks) Keys() []string {
	keys := make([]string, len(h.SigningKeys))
	for i, key := range h.SigningKeys {
		keys[i] = key.Reveal()
	}
	return keys
}

// hookToken decodes a token that is written alone.
func (d *decoder) hookToken(node *yaml.Node, v reflect.Value, path string) bool {
	if v.Type() != hookTokenType || node.Kind != yaml.ScalarNode {
		return false
	}
	if text, ok := d.Scalar(node, path, "a string"); ok {
		v.Set(reflect.ValueOf(HookToken{Token: NewSecret(text)}))
	}
	return true
}

// hookSecrets reads the files of the hooks.
func (c *checker) hookSecrets() {
	h := &c.config.Hooks
	for i, file := range h.SigningKeyFiles {
		at := fmt.Sprintf("hooks.signing_key_files[%d]", i)
		if !c.notEmpty(at, file, "name a file") {
			continue
		}
		text, err := readFile(file)
		if err != nil {
			c.fault(at, fmt.Sprintf("%s: %s", file, fileProblem(err)), "create it, or correct the path")
			continue
		}
		key := strings.TrimRight(string(text), "\r\n")
		if key == "" {
			c.fault(at, fmt.Sprintf("%s: the file is empty", file), "write the signing key into it")
			continue
		}
		h.SigningKeys = append(slices.Clip(h.SigningKeys), NewSecret(key))
	}
	for i := range h.Tokens {
		c.secret(&h.Tokens[i].Token, h.Tokens[i].TokenFile, fmt.Sprintf("hooks.tokens[%d].token", i))
	}
}

func (c *checker) hooks() {
	h := c.config.Hooks
	c.serverTLS("hooks.tls", h.TLS)
	c.positiveTime("hooks.function_timeout", h.FunctionTimeout)
	c.positive("hooks.max_body_bytes", h.MaxBodyBytes)
	for i, key := range h.SigningKeys {
		if key.Empty() {
			c.fault(fmt.Sprintf("hooks.signing_keys[%d]", i), "empty", "write the signing key of the target that calls, or remove the entry")
		}
	}
	for i, t := range h.Tokens {
		at := fmt.Sprintf("hooks.tokens[%d].token", i)
		switch value := t.Token.Reveal(); {
		case value == "" && t.TokenFile == "":
			c.fault(at, "no token is given", "write token or token_file")
		case value != "" && !httpToken.MatchString(value):
			c.fault(at, "contains spaces or characters that no header can carry", "use printable ASCII without spaces")
		}
	}
	for i, name := range h.Functions {
		if !functionName.MatchString(name) {
			c.fault(fmt.Sprintf("hooks.functions[%d]", i), fmt.Sprintf("%q is not the name of a function", name), "use letters, digits, _, . and -")
		}
	}
	if h.Listen != "" && isListen(h.Listen) && !isLoopback(h.Listen) && len(h.SigningKeys)+len(h.SigningKeyFiles)+len(h.Tokens) == 0 {
		c.fault("hooks.listen", fmt.Sprintf("%s can be reached from other machines, and neither hooks.signing_keys nor hooks.tokens is set: anybody there could send events and run functions", h.Listen),
			"add a signing key or a token, or listen on 127.0.0.1")
	}
}

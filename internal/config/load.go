package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxFile bounds what is read as configuration or secret, so that a device or
// a wrong path cannot fill the memory.
const maxFile = 4 << 20

// Load reads the YAML file at name ("": none), lets the EXECGATE_ variables of
// environ (as from [os.Environ]) override it, reads the *_file secrets, and
// checks the result. Its error is always [Faults] with everything that was
// found. Relative paths in the configuration are relative to the working
// directory.
func Load(name string, environ []string) (*Config, error) {
	config := Default()
	config.origins = origins{}
	var faults Faults
	if name != "" {
		config.origins[""] = origin{file: name}
		text, err := readFile(name)
		if err != nil {
			return nil, Faults{{File: name, Text: fileProblem(err), Hint: "check the path given with --config"}}
		}
		newDecoder(name, "", &faults, config.origins).document(text, config)
	}
	environment(environ, config, &faults, config.origins)
	c := &checker{config: config, broken: pathsOf(faults)}
	c.secrets()
	c.all()
	faults = append(faults, c.faults...)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return config, nil
}

// Check returns what is wrong with a configuration that was made in code, as
// [Faults], and reads its *_file secrets when that was not done yet. [Load]
// has done both already.
func (c *Config) Check() error {
	if c.origins == nil {
		c.origins = origins{}
	}
	k := &checker{config: c}
	k.secrets()
	k.all()
	return k.faults.Err()
}

// pathsOf lists the keys that have a fault already; a second one about their
// (default) value would only confuse.
func pathsOf(faults Faults) map[string]bool {
	paths := map[string]bool{}
	for _, f := range faults {
		paths[f.Path] = true
	}
	return paths
}

// readFile reads a file of bounded size.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	return text, nil
}

// fileProblem says in plain words why a file could not be read. The path is
// left to the fault.
func fileProblem(err error) string {
	var path *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "no such file"
	case errors.Is(err, fs.ErrPermission):
		return "not readable by this user"
	case errors.As(err, &path):
		return path.Err.Error()
	default:
		return err.Error()
	}
}

// secrets reads the *_file keys into the keys that they stand for.
func (c *checker) secrets() {
	if c.config.secretsRead {
		return
	}
	c.config.secretsRead = true
	for i := range c.config.Admin.Tokens {
		at := fmt.Sprintf("admin.tokens[%d]", i)
		t := &c.config.Admin.Tokens[i]
		c.secret(&t.Token, t.TokenFile, at+".token")
	}
	c.hookSecrets()
	r := &c.config.Store.Redis
	if (r.URLFile != "" || len(r.Addrs) > 0) && !c.config.origins.has("store.redis.url") {
		r.URL = Secret{} // the default gives way
	}
	c.secret(&r.URL, r.URLFile, "store.redis.url")
	c.secret(&r.Password, r.PasswordFile, "store.redis.password")
	c.secret(&r.SentinelPassword, r.SentinelPasswordFile, "store.redis.sentinel_password")
}

// secret fills value from file, a trailing newline trimmed.
func (c *checker) secret(value *Secret, file, path string) {
	if file == "" {
		return
	}
	if !value.Empty() {
		c.fault(path+"_file", fmt.Sprintf("given together with %s", path), "keep one of them")
		return
	}
	text, err := readFile(file)
	if err != nil {
		c.fault(path+"_file", fmt.Sprintf("%s: %s", file, fileProblem(err)), "create it, or correct the path")
		return
	}
	trimmed := strings.TrimRight(string(text), "\r\n")
	if trimmed == "" {
		c.fault(path+"_file", fmt.Sprintf("%s: the file is empty", file), "write the secret into it")
		return
	}
	*value = NewSecret(trimmed)
}

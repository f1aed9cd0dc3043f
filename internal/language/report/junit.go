package report

import (
	"encoding/xml"
	"io"
)

// Case is one test and how it went.
type Case struct {
	Suite   string // the file of the rule
	Name    string
	Failure string // empty if it held
	Skipped string // why it was not run; empty if it was
	Where   string
}

// WriteJUnit writes test cases as JUnit XML, which build servers read. Cases of
// one suite stand together.
func WriteJUnit(w io.Writer, cases []Case) error {
	type failure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
	type skipped struct {
		Message string `xml:"message,attr"`
	}
	type testcase struct {
		Class   string   `xml:"classname,attr"`
		Name    string   `xml:"name,attr"`
		Failure *failure `xml:"failure,omitempty"`
		Skipped *skipped `xml:"skipped,omitempty"`
	}
	type suite struct {
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Skipped  int        `xml:"skipped,attr"`
		Cases    []testcase `xml:"testcase"`
	}
	var all struct {
		XMLName  xml.Name `xml:"testsuites"`
		Tests    int      `xml:"tests,attr"`
		Failures int      `xml:"failures,attr"`
		Suites   []*suite `xml:"testsuite"`
	}
	byName := map[string]*suite{}
	for _, c := range cases {
		s := byName[c.Suite]
		if s == nil {
			s = &suite{Name: c.Suite}
			byName[c.Suite] = s
			all.Suites = append(all.Suites, s)
		}
		t := testcase{Class: c.Suite, Name: c.Name}
		if c.Failure != "" {
			t.Failure = &failure{c.Failure, c.Where}
			s.Failures++
			all.Failures++
		}
		if c.Skipped != "" {
			t.Skipped = &skipped{c.Skipped}
			s.Skipped++
		}
		s.Tests++
		all.Tests++
		s.Cases = append(s.Cases, t)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

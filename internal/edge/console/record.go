package console

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/holdfast-security/holdfast/internal/view"
)

const entriesPerPage = 50

type recordPage struct {
	shell
	view.RecordPage
	Query view.RecordQuery
	Asked url.Values
}

func (s *Console) record(w http.ResponseWriter, r *http.Request, v *visit) error {
	asked := r.URL.Query()
	before, err := strconv.ParseInt(asked.Get("before"), 10, 64)
	if err != nil || before < 0 {
		before = 0 // nonsense is the newest page
	}
	q := view.RecordQuery{Before: before, Kind: asked.Get("kind"), Size: entriesPerPage}
	page, err := v.source.Record(r.Context(), q)
	if err != nil {
		return err
	}
	return s.render(w, http.StatusOK, recordView(recordPage{s.shell(v, "Record", "record", view.TopicRecord), page, q, asked}))
}

func (s *Console) exportRecord(w http.ResponseWriter, r *http.Request, v *visit) error {
	b, err := v.source.ExportRecord(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/zip")
	w.Header().Set("Content-Disposition", `attachment; filename="holdfast-record.zip"`)
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(b)
	return nil
}

// older is the address of the next page, or empty.
func (p recordPage) older() string {
	n := len(p.Entries)
	if n == 0 || n < p.Query.Size || p.Entries[n-1].Index == 0 {
		return ""
	}
	return with("/record", p.Asked, "before", strconv.FormatInt(p.Entries[n-1].Index, 10))
}

# Mean KL against bytes per token; what is at or under the noise floor sits below the break.
set lmargin at screen 0.110
set rmargin at screen 0.970
set tmargin at screen 0.900
set bmargin at screen 0.1333
set logscale xy
set xrange [x_lo:x_hi]
set yrange [y_lo:y_hi]
set title 'Drift against bytes: '.workload.', forced on '.target.' replies' offset 0,0.8
set xlabel 'bytes per token (log scale)'
set ylabel 'mean KL from the baseline, nats (log scale)' offset 1.5,0
set ytics ()
do for [d=first_decade:last_decade] {
    set ytics add (sprintf('10^{%d}', d) 10.0**d)
}
set xtics add ('500' 500, '1k' 1000, '2k' 2000, '5k' 5000, '10k' 10000, '20k' 20000, '50k' 50000, '100k' 100000, '200k' 200000)
if (has_band) {
    set ytics add ("≤ noise\nfloor" y_band)
    set object 1 rectangle from x_lo, y_lo to x_hi, y_break fc rgb '#f2f2f2' fs solid noborder behind
    set arrow 1 from x_lo, y_break to x_hi, y_break nohead lc rgb '#555555' dt 2 lw 1.5
}
note = 'noise floor: '.floor_text.' nats'
if (has_other) { note = note.'; grey: beaten at one, not better at the other' }
if (has_oracles) { note = note.'; diamonds: oracles, not deployable' }
if (n_unlabelled) { note = note.sprintf('; %d label%s left out', n_unlabelled, n_unlabelled > 1 ? 's' : '') }
set label 1 note at screen 0.54, screen 0.918 center font ',11' textcolor rgb '#555555' noenhanced
set label 2 'run '.run at screen 0.01, screen 0.03 font ',11' textcolor rgb '#555555' noenhanced
front(c) = column('front') == 1 ? column(c) : NaN
other(c) = column('front') == 0 && strcol('role') ne 'oracle' ? column(c) : NaN
oracle(c) = strcol('role') eq 'oracle' ? column(c) : NaN
do for [fmt in 'svg png'] {
    eval 'set term '.(fmt eq 'svg' ? svg : png)
    set output name.'.'.fmt
    # a layer without any point is left out: gnuplot 5.4 can crash on one
    plot for [k=1:has_intervals] data using (front('bytes_per_token')):'y':'kl_lo':'kl_hi' with yerrorbars pt 0 lc rgb '#999999', \
         for [k=1:has_other] data using (other('bytes_per_token')):'y' with points pt 7 ps 0.6 lc rgb '#c4c4c4', \
         for [k=1:has_oracles] data using (oracle('bytes_per_token')):'y' with points pt 12 ps 1.1 lc rgb '#777777', \
         for [k=1:has_leads] data using 'lead_x':'lead_y':(column('bytes_per_token')-column('lead_x')):(column('y')-column('lead_y')) with vectors nohead lc rgb '#8899aa' lw 1, \
         data using (front('bytes_per_token')):'y' with lines lc rgb colour(0) lw 2, \
         data using (front('bytes_per_token')):'y' with points pt 7 ps 1.1 lc rgb colour(0), \
         data using (front('label_x')):'label_y':(strcol('strategy')) with labels left noenhanced font ',12' textcolor rgb colour(0)
    unset output
}
